// SPDX-License-Identifier: MIT
// The front door: layers, model, training. Needs Eigen alone; files are read by retnet/io.
#pragma once

#include "retnet/core/tensor.hpp"                   // IWYU pragma: export
#include "retnet/fwd.hpp"                           // IWYU pragma: export
#include "retnet/layers/multi_scale_retention.hpp"  // IWYU pragma: export
#include "retnet/layers/retnet_block.hpp"           // IWYU pragma: export
#include "retnet/model/retnet_model.hpp"            // IWYU pragma: export
#include "retnet/model/session.hpp"                 // IWYU pragma: export
#include "retnet/train/schedule.hpp"                // IWYU pragma: export
#include "retnet/train/trainer.hpp"                 // IWYU pragma: export
