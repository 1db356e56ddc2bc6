// SPDX-License-Identifier: MIT
// Every call of CUDA is checked; what fails throws CudaError with the call, its place and the shape
// that was worked on.
#pragma once

#include <cuda_runtime.h>

#include <sstream>
#include <stdexcept>
#include <string>

namespace retnet {

/// A call of CUDA or cuBLASLt that failed. After one that the driver calls sticky (an illegal address, a
/// failed launch) the process can use the device no more.
class CudaError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

namespace cuda {

[[noreturn]] inline void fail(const char* call, const std::string& what, const char* file, int line,
                              const std::string& about) {
  std::ostringstream s;
  s << "[retnet::cuda] " << call << ": " << what << " at " << file << ":" << line;
  if (!about.empty()) s << ", working on " << about;
  throw CudaError(s.str());
}

inline void check(cudaError_t code, const char* call, const char* file, int line,
                  const std::string& about = {}) {
  if (code == cudaSuccess) return;
  cudaGetLastError();  // a sticky error stays; any other must not be found again by the next call
  fail(call, std::string(cudaGetErrorName(code)) + ", " + cudaGetErrorString(code), file, line,
       about);
}

/// The parts of a message, one after the other: concat("[", rows, ",", cols, "]").
template <class... Parts>
std::string concat(const Parts&... parts) {
  std::ostringstream s;
  (s << ... << parts);
  return s.str();
}

}  // namespace cuda

/// RETNET_CUDA(call) or RETNET_CUDA(call, shape as a string).
#define RETNET_CUDA(call, ...) \
  ::retnet::cuda::check((call), #call, __FILE__, __LINE__ __VA_OPT__(, ) __VA_ARGS__)

/// After a launch: RETNET_CUDA_LAUNCHED("kernel", shape as a string). The string is made only when
/// the launch failed, so that a launch costs no allocation.
#define RETNET_CUDA_LAUNCHED(kernel, ...)                                                  \
  do {                                                                                     \
    if (const cudaError_t retnet_code = cudaPeekAtLastError(); retnet_code != cudaSuccess) \
      ::retnet::cuda::check(retnet_code, kernel, __FILE__,                                 \
                            __LINE__ __VA_OPT__(, ) __VA_ARGS__);                          \
  } while (false)

/// Throws std::invalid_argument: "[where] ...", for what the caller gave.
#define RETNET_CUDA_REQUIRE(condition, where, ...)                                            \
  do {                                                                                        \
    if (!(condition))                                                                         \
      throw std::invalid_argument(::retnet::cuda::concat("[", where, "] ", __VA_ARGS__));     \
  } while (false)

}  // namespace retnet
