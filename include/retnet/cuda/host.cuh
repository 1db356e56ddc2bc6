// SPDX-License-Identifier: MIT
// The CPU's model in a file that nvcc compiles: its headers are for the host alone.
#pragma once

#ifndef EIGEN_NO_CUDA
#define EIGEN_NO_CUDA  // no kernel uses Eigen: it need not mark its functions for the device
#endif

#ifdef __CUDACC__
#pragma nv_diagnostic push
#pragma nv_diag_suppress 1675  // a pragma of the host's compiler
#endif
#include "retnet/model/retnet_model.hpp"
#include "retnet/model/session.hpp"
#include "retnet/train/trainer.hpp"
#ifdef __CUDACC__
#pragma nv_diagnostic pop
#endif
