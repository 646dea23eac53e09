/* Messages of the control plane, made of the library's values, and one the other way. */
#ifndef SERVER_MESSAGES_H
#define SERVER_MESSAGES_H

#include <modelcache/types.h>

#include "modelcache.pb-c.h"

typedef Modelcache__V1__Entry EntryMessage;

/* Each message points into itself and into the value it was made of, except that a listed one has a copy: what is said
 * of it is gone after the visit. Its path is the caller's to set. */
struct entry_message {
  EntryMessage message;
  Modelcache__V1__Validators validators;
};

struct listed_message {
  Modelcache__V1__Listed message;
  Modelcache__V1__Validators validators;
  mc_listed value;
};

void fill_validators(Modelcache__V1__Validators *to, const mc_validators *from);
void fill_entry(struct entry_message *to, const mc_entry *entry);
void fill_listed(struct listed_message *to, const mc_listed *listed);

/* What a client says was listed; its path is "". false: nothing, or what can't be so. */
bool listed_from(mc_listed *out, const Modelcache__V1__Listed *message);

#endif
