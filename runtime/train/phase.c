/* Names of phases, for people who look at a run. */
#include <trainrun/worker.h>

const char *tr_phase_name(tr_phase phase) {
  switch (phase) {
    case TR_PHASE_STARTING: return "starting";
    case TR_PHASE_INDEXING: return "indexing";
    case TR_PHASE_LOADING: return "loading";
    case TR_PHASE_DATA: return "data";
    case TR_PHASE_COMPUTE: return "compute";
    case TR_PHASE_COLLECTIVE: return "collective";
    case TR_PHASE_UPDATE: return "update";
    case TR_PHASE_CHECKPOINT: return "checkpoint";
    case TR_PHASE_EVALUATION: return "evaluation";
    case TR_PHASE_ENDING: return "ending";
  }
  return "unknown";
}
