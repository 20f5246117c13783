/* The whole of trainrun's C interface. */
#ifndef TRAINRUN_TRAINRUN_H
#define TRAINRUN_TRAINRUN_H

#include <trainrun/base.h>
#include <trainrun/checkpoint.h>
#include <trainrun/collective.h>
#include <trainrun/dataloader.h>
#include <trainrun/device.h>
#include <trainrun/ops.h>
#include <trainrun/run.h>
#include <trainrun/s3.h>
#include <trainrun/store.h>
#include <trainrun/train.h>
#include <trainrun/worker.h>

#endif
