#include "base/clock.h"

mc_status mc_call_check(const mc_call *call, mc_error *err) {
  if (mc_cancel_triggered(call->cancel)) return mc_error_set(err, MC_CANCELLED, "call", "the call was cancelled");
  if (call->deadline != INT64_MAX && clock_ns() >= call->deadline) {
    return mc_error_set(err, MC_DEADLINE_EXCEEDED, "call", "the call's deadline has passed");
  }
  return MC_OK;
}
