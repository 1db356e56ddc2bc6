// SPDX-License-Identifier: MIT
// The front door on a device, for files that nvcc compiles: model, training, generation and the ops.
//
//   CudaContext ctx;                                  // a device, its stream, its scratch memory
//   CudaTrainer<> trainer(ctx, model, config);        // trainer.cuh
//   CudaRetNetModel<> on_device(ctx, model);          // model.cuh
//   CudaSession session(ctx, on_device);              // session.cuh
//
// Ops have the names that they have on the CPU, overloaded on CudaContext: they put work on its stream
// and return. T is float or __nv_bfloat16, in retention __half too; T is often given by name, as
// linear<T, Out>(ctx, ...), since const matrices come of others by conversion. What the caller gave
// wrong throws std::invalid_argument before anything is launched; what CUDA reports throws CudaError.
#pragma once

#include "retnet/cuda/activation.cuh"          // IWYU pragma: export
#include "retnet/cuda/adamw.cuh"               // IWYU pragma: export
#include "retnet/cuda/buffer.cuh"              // IWYU pragma: export
#include "retnet/cuda/context.cuh"             // IWYU pragma: export
#include "retnet/cuda/cross_entropy.cuh"       // IWYU pragma: export
#include "retnet/cuda/embedding.cuh"           // IWYU pragma: export
#include "retnet/cuda/error.cuh"               // IWYU pragma: export
#include "retnet/cuda/few_rows.cuh"            // IWYU pragma: export
#include "retnet/cuda/graph.cuh"               // IWYU pragma: export
#include "retnet/cuda/linear.cuh"              // IWYU pragma: export
#include "retnet/cuda/matrix.cuh"              // IWYU pragma: export
#include "retnet/cuda/model.cuh"               // IWYU pragma: export
#include "retnet/cuda/norm.cuh"                // IWYU pragma: export
#include "retnet/cuda/retention.cuh"           // IWYU pragma: export
#include "retnet/cuda/retention_deferred.cuh"  // IWYU pragma: export
#include "retnet/cuda/rotation.cuh"            // IWYU pragma: export
#include "retnet/cuda/session.cuh"             // IWYU pragma: export
#include "retnet/cuda/stage_clock.cuh"         // IWYU pragma: export
#include "retnet/cuda/trainer.cuh"             // IWYU pragma: export
