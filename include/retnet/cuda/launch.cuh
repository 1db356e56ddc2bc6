// SPDX-License-Identifier: MIT
// Early launches: where kernels are short, the next one's blocks may come while the one before still
// runs, do what does not depend on it (reading weights), and wait for its end.
#pragma once

#include <unordered_set>
#include <utility>

#include "retnet/cuda/context.cuh"

namespace retnet::cuda {

/// Blocks may be put on the multiprocessors while the kernel before still runs; they wait here for
/// its end, and let the blocks of the kernel behind come as early. Every kernel that is launched early
/// must come here, in every thread.
__device__ inline void wait_for_previous_kernel() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/// Kernels whose limit of dynamic shared memory was raised, by one context.
struct RaisedLimits {
  std::unordered_set<const void*> kernels;
};

/// Lets `kernel` have all the shared memory a block can have. The limit is the kernel's and not a
/// launch's, so it is always the same: contexts in other threads find it as they left it.
template <class... Parameters>
void raise_shared_memory(CudaContext& ctx, void (*kernel)(Parameters...)) {
  const auto* name = reinterpret_cast<const void*>(kernel);
  auto& raised = ctx.part<RaisedLimits>().kernels;  // the device is current now
  if (raised.contains(name)) return;
  cudaFuncAttributes its{};
  RETNET_CUDA(cudaFuncGetAttributes(&its, name));
  const std::size_t most = ctx.properties().sharedMemPerBlockOptin - its.sharedSizeBytes;
  RETNET_CUDA(cudaFuncSetAttribute(name, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   static_cast<int>(most)),
              concat(most, " bytes of shared memory"));
  raised.insert(name);
}

/// kernel<<<grid, block, shared>>>(arguments...), early where asked for and where the device can.
template <class... Parameters, class... Arguments>
void launch(CudaContext& ctx, bool early, void (*kernel)(Parameters...), dim3 grid, dim3 block,
            std::size_t shared, Arguments&&... arguments) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared;
  config.stream = ctx.stream();
  config.attrs = &attribute;
  config.numAttrs = early && ctx.properties().major >= 9 ? 1 : 0;
  const cudaError_t code =
      cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
  if (code != cudaSuccess)
    check(code, "cudaLaunchKernelEx", __FILE__, __LINE__,
          concat(grid.x, " blocks of ", block.x, "x", block.y, " threads"));
}

/// Rows of a generation step: their kernels are short.
inline constexpr std::int64_t kShortRows = 256;

}  // namespace retnet::cuda
