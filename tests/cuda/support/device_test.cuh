// SPDX-License-Identifier: MIT
// What every test on a device begins with.
#pragma once

#include <gtest/gtest.h>

#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "retnet/cuda/context.cuh"

namespace retnet::test {

/// Skipped, by name, where there is no device; else brings a context.
class DeviceTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!cuda_available()) GTEST_SKIP() << "no CUDA device";
    context_ = std::make_unique<CudaContext>();
    context_->trace = &paths;
  }
  CudaContext& ctx() { return *context_; }

  std::vector<const char*> paths;  // that ran

 private:
  std::unique_ptr<CudaContext> context_;
};

}  // namespace retnet::test
