#include "control.h"

grpc_status_code code_of(mc_status status) {
  switch (status) {
  case MC_OK:
    return GRPC_STATUS_OK;
  case MC_INVALID_ARGUMENT:
    return GRPC_STATUS_INVALID_ARGUMENT;
  case MC_NOT_FOUND:
    return GRPC_STATUS_NOT_FOUND;
  case MC_PERMISSION_DENIED:
    return GRPC_STATUS_PERMISSION_DENIED;
  case MC_UNAVAILABLE:
    return GRPC_STATUS_UNAVAILABLE;
  case MC_DEADLINE_EXCEEDED:
    return GRPC_STATUS_DEADLINE_EXCEEDED;
  case MC_CANCELLED:
    return GRPC_STATUS_CANCELLED;
  case MC_NO_SPACE:
  case MC_RESOURCE_EXHAUSTED:
  case MC_NO_MEMORY:
    return GRPC_STATUS_RESOURCE_EXHAUSTED;
  case MC_CORRUPT:
    return GRPC_STATUS_DATA_LOSS;
  case MC_CHANGED:
  case MC_BUSY:
    return GRPC_STATUS_ABORTED;
  case MC_UNSUPPORTED:
    return GRPC_STATUS_UNIMPLEMENTED;
  default:
    return GRPC_STATUS_INTERNAL;
  }
}
