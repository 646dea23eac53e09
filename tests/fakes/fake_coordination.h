/* The local coordination behind a wrapper through which a test is another process, and fails calls on demand. */
#ifndef TESTS_FAKE_COORDINATION_H
#define TESTS_FAKE_COORDINATION_H

#include <modelcache/backend/coordination.h>

enum fake_verb { FAKE_LOOKUP, FAKE_CLAIM, FAKE_RENEW, FAKE_PUBLISH, FAKE_ABANDON, FAKE_WAIT, FAKE_VERBS };

/* NULL-terminated: for mc_options.coordination_backends; its name is "fake". */
extern const mc_coordination_ops *const fake_coordinations[];

/* The coordination that was opened last, unwrapped: what is done to it here, another process does. */
mc_coordination *fake_coordination_inner(void);
/* Let this and further calls fail, until it is told MC_OK. */
void fake_coordination_fail(enum fake_verb verb, mc_status status);
unsigned fake_coordination_calls(enum fake_verb verb);
void fake_coordination_await(enum fake_verb verb, unsigned calls);
/* Called once, before the next claim is made: what another process does between a look and a claim. */
void fake_coordination_before_claim(void (*act)(void *user), void *user);
/* Hold back publishing; and wait until a call is held back. */
void fake_coordination_hold_publish(bool hold);
void fake_coordination_await_held(void);
void fake_coordination_reset(void);

#endif
