// SPDX-License-Identifier: MIT
// Linear on the device, by cuBLASLt: y = x W^T + b, weights [out, in], sums in float.
//
//   y[R,out] = x[R,in] W[out,in]^T + b[out] + beta z[R,out]
//   dx = dy W + beta z        dW += dy^T x        db += sum over rows of dy
//
// The residual of a block is `z`: it is added before the result is rounded, and costs no kernel of
// its own. cuBLASLt counts columns first, so every product here is handed over transposed.
#pragma once

#include <cublasLt.h>

#include <algorithm>
#include <vector>

#include "retnet/cuda/launch.cuh"
#include "retnet/cuda/matrix.cuh"

namespace retnet {

namespace cuda {

inline void check_blas(cublasStatus_t code, const char* call, const char* file, int line,
                       const std::string& about = {}) {
  if (code != CUBLAS_STATUS_SUCCESS) fail(call, cublasLtGetStatusName(code), file, line, about);
}
#define RETNET_CUBLAS(call, ...) \
  ::retnet::cuda::check_blas((call), #call, __FILE__, __LINE__ __VA_OPT__(, ) __VA_ARGS__)

template <class T>
constexpr cudaDataType_t blas_type() {
  if constexpr (std::is_same_v<T, float>) return CUDA_R_32F;
  if constexpr (std::is_same_v<T, __nv_bfloat16>) return CUDA_R_16BF;
  if constexpr (std::is_same_v<T, __half>) return CUDA_R_16F;
}

/// C[m,n] = op(A) op(B) + beta Z, row-major; op transposes where the flag says so.
struct Product {
  std::int64_t m = 0, n = 0, k = 0;
  std::int64_t lda = 0, ldb = 0, ldz = 0, ldc = 0;
  cudaDataType_t in = CUDA_R_32F, out = CUDA_R_32F;
  std::int32_t transpose_a = 0, transpose_b = 0;
  std::int32_t bias = 0, alignment = 16;

  bool operator==(const Product&) const = default;
  std::string text() const {
    return concat("[", m, ",", k, "] x [", k, ",", n, "], strides ", lda, " ", ldb, " ", ldc);
  }
};

/// The handle of cuBLASLt, and for every product seen so far how it is done.
class Blas {
 public:
  static constexpr std::int64_t kWorkspace = std::int64_t{32} << 20;

  Blas() { RETNET_CUBLAS(cublasLtCreate(&handle_)); }
  Blas(const Blas&) = delete;
  Blas& operator=(const Blas&) = delete;
  ~Blas() {
    for (auto& p : plans_) {
      for (auto* layout : {p.a, p.b, p.z, p.c}) cublasLtMatrixLayoutDestroy(layout);
      cublasLtMatmulDescDestroy(p.description);
    }
    cublasLtDestroy(handle_);
  }

  void run(CudaContext& ctx, const Product& p, const void* a, const void* b, float beta,
           const void* z, void* c, const void* bias) {
    Plan& plan = plan_for(p);
    if (p.bias != 0)
      RETNET_CUBLAS(cublasLtMatmulDescSetAttribute(
          plan.description, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof(bias)));
    const auto scope = ctx.workspace().scope();
    auto* space = ctx.workspace().take<std::byte>(kWorkspace);
    const float one = 1.0f;
    if (z == nullptr) z = c;
    const auto status =
        cublasLtMatmul(handle_, plan.description, &one, b, plan.b, a, plan.a, &beta, z, plan.z, c,
                       plan.c, &plan.algorithm, space, kWorkspace, ctx.stream());
    if (status != CUBLAS_STATUS_SUCCESS)  // the text is made only then
      check_blas(status, "cublasLtMatmul", __FILE__, __LINE__, p.text());
  }

 private:
  struct Plan {
    Product product;
    cublasLtMatmulDesc_t description = nullptr;
    cublasLtMatrixLayout_t a = nullptr, b = nullptr, z = nullptr, c = nullptr;
    cublasLtMatmulAlgo_t algorithm{};
  };

  Plan& plan_for(const Product& p) {
    for (auto& plan : plans_)
      if (plan.product == p) return plan;
    plans_.push_back(make(p));
    return plans_.back();
  }

  // What is [rows,cols] here is [cols,rows] there: B comes first, and C comes out as C^T.
  Plan make(const Product& p) {
    Plan plan{.product = p};
    RETNET_CUBLAS(cublasLtMatmulDescCreate(&plan.description, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    const auto set = [&](cublasLtMatmulDescAttributes_t name, const auto& value) {
      RETNET_CUBLAS(cublasLtMatmulDescSetAttribute(plan.description, name, &value, sizeof(value)));
    };
    set(CUBLASLT_MATMUL_DESC_TRANSA, p.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(CUBLASLT_MATMUL_DESC_TRANSB, p.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
    if (p.bias != 0) {
      set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
      const void* somewhere = &plan;  // the heuristic asks whether there is one, not where
      set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, somewhere);
    }
    const auto layout = [](cublasLtMatrixLayout_t& l, cudaDataType_t type, std::int64_t rows,
                           std::int64_t cols, std::int64_t stride) {
      RETNET_CUBLAS(cublasLtMatrixLayoutCreate(&l, type, static_cast<std::uint64_t>(cols),
                                               static_cast<std::uint64_t>(rows), stride));
    };
    layout(plan.a, p.in, p.transpose_a ? p.k : p.m, p.transpose_a ? p.m : p.k, p.lda);
    layout(plan.b, p.in, p.transpose_b ? p.n : p.k, p.transpose_b ? p.k : p.n, p.ldb);
    layout(plan.z, p.out, p.m, p.n, p.ldz);
    layout(plan.c, p.out, p.m, p.n, p.ldc);
    choose(plan);
    return plan;
  }

  void choose(Plan& plan) {
    const Product& p = plan.product;
    cublasLtMatmulPreference_t wish = nullptr;
    RETNET_CUBLAS(cublasLtMatmulPreferenceCreate(&wish));
    const auto set = [&](cublasLtMatmulPreferenceAttributes_t name, const auto& value) {
      RETNET_CUBLAS(cublasLtMatmulPreferenceSetAttribute(wish, name, &value, sizeof(value)));
    };
    set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<std::uint64_t>(kWorkspace));
    for (const auto name :
         {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
          CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
      set(name, static_cast<std::uint32_t>(p.alignment));
    cublasLtMatmulHeuristicResult_t found{};
    int count = 0;
    const auto status = cublasLtMatmulAlgoGetHeuristic(handle_, plan.description, plan.b, plan.a,
                                                       plan.z, plan.c, wish, 1, &found, &count);
    cublasLtMatmulPreferenceDestroy(wish);
    RETNET_CUBLAS(status, p.text());
    if (count == 0)
      fail("cublasLtMatmulAlgoGetHeuristic", "no algorithm", __FILE__, __LINE__, p.text());
    plan.algorithm = found.algo;
  }

  cublasLtHandle_t handle_ = nullptr;
  std::vector<Plan> plans_;
};

/// The largest power of two up to 16 that divides the addresses.
inline std::int32_t common_alignment(std::initializer_list<const void*> addresses) {
  std::uintptr_t bits = 16;
  for (const void* p : addresses) bits |= reinterpret_cast<std::uintptr_t>(p);
  return static_cast<std::int32_t>(bits & (~bits + 1));
}

template <class In, class Out>
void product(CudaContext& ctx, bool transpose_a, DeviceMatrix<const In> a, bool transpose_b,
             DeviceMatrix<const In> b, float beta, DeviceMatrix<const Out> z, DeviceMatrix<Out> c,
             const In* bias = nullptr) {
  const auto k = transpose_a ? a.rows : a.cols;
  RETNET_CUDA_REQUIRE((transpose_a ? a.cols : a.rows) == c.rows &&
                          (transpose_b ? b.rows : b.cols) == c.cols &&
                          (transpose_b ? b.cols : b.rows) == k,
                      "cuda::product", "[", a.rows, ",", a.cols, "] and [", b.rows, ",", b.cols,
                      "] for a result [", c.rows, ",", c.cols, "]");
  if (c.rows == 0 || c.cols == 0) return;
  if (z.data == nullptr) z = c;
  const Product p{.m = c.rows,
                  .n = c.cols,
                  .k = k,
                  .lda = a.stride,
                  .ldb = b.stride,
                  .ldz = z.stride,
                  .ldc = c.stride,
                  .in = blas_type<In>(),
                  .out = blas_type<Out>(),
                  .transpose_a = transpose_a,
                  .transpose_b = transpose_b,
                  .bias = bias != nullptr,
                  .alignment = common_alignment({a.data, b.data, z.data, c.data})};
  ctx.part<Blas>().run(ctx, p, a.data, b.data, beta, z.data, c.data, bias);
}

/// Rows that are so few that the product is a reading of the weights: generation.
inline constexpr int kFewRows = 2;
inline constexpr int kFewRowsThreads = 256;

/// x of a product of few rows as it lies in memory. What a source does: make(x) lets the block write
/// its rows, one behind the other, to shared memory.
template <class T>
struct PlainSource {
  DeviceMatrix<const T> x;
  __device__ void make(T* out) const {
    constexpr int V = kPack<T>;
    for (int r = 0; r < x.rows; ++r)
      for (int k = threadIdx.x * V; k < x.cols; k += kFewRowsThreads * V) {
        Pack<T, V> pack;
        pack.load(x.row(r) + k);
        pack.store(out + r * x.cols + k);
      }
  }
};

// A warp makes one column of y for all Rows rows: it reads a row of W once, 16 bytes a lane, the
// first Held packs before it waits for x, which the block makes once.
template <class T, class Out, int Rows, class Source>
__global__ void __launch_bounds__(kFewRowsThreads, 3)
    few_rows_kernel(DeviceMatrix<const T> w, const T* bias, Source source, DeviceMatrix<Out> y,
                    DeviceMatrix<const Out> z, float beta) {
  extern __shared__ uint4 few_rows_shared[];
  constexpr int V = kPack<T>, kHeld = 8, kStep = 32 * V;
  T* x = reinterpret_cast<T*>(few_rows_shared);
  const std::int64_t n = blockIdx.x * std::int64_t{kFewRowsThreads / 32} + threadIdx.x / 32;
  const int first = static_cast<int>(threadIdx.x % 32) * V, width = static_cast<int>(w.cols);
  const int k_end = n < w.rows ? width : 0;
  const T* weights = w.row(n < w.rows ? n : 0);
  Pack<T, V> held[kHeld];
#pragma unroll
  for (int i = 0; i < kHeld; ++i)
    if (first + i * kStep < k_end) held[i].load(weights + first + i * kStep);
  wait_for_previous_kernel();
  source.make(x);
  __syncthreads();
  float sum[Rows] = {};
  const auto multiply = [&](const Pack<T, V>& pack, int k) {
    float a[V];
    pack.get(a);
#pragma unroll
    for (int r = 0; r < Rows; ++r) {
      float b[V];
      load_floats(x + r * width + k, b);
#pragma unroll
      for (int e = 0; e < V; ++e) sum[r] = fmaf(a[e], b[e], sum[r]);
    }
  };
#pragma unroll
  for (int i = 0; i < kHeld; ++i)
    if (first + i * kStep < k_end) multiply(held[i], first + i * kStep);
  for (int k = first + kHeld * kStep; k < k_end; k += kStep) {
    Pack<T, V> pack;
    pack.load(weights + k);
    multiply(pack, k);
  }
#pragma unroll
  for (int r = 0; r < Rows; ++r) {
    const float total = warp_sum(sum[r]);
    if (n >= w.rows || r >= y.rows || threadIdx.x % 32 != 0) continue;
    float out = total + (bias != nullptr ? to_float(bias[n]) : 0.0f);
    if (z.data != nullptr) out = fmaf(beta, to_float(z.row(r)[n]), out);
    y.row(r)[n] = from_float<Out>(out);
  }
}

template <class T>
bool few_rows_serve(DeviceMatrix<const T> w, std::int64_t rows) {
  constexpr std::int64_t kMost = 40 * 1024;  // bytes of shared memory
  return rows <= kFewRows && packs(w) && rows * w.cols * std::int64_t{sizeof(T)} <= kMost;
}

/// y = (what the source makes) W^T + bias + beta z, where few_rows_serve.
template <class T, class Out, class Source>
void few_rows(CudaContext& ctx, DeviceMatrix<const T> w, const T* bias, const Source& source,
              DeviceMatrix<Out> y, DeviceMatrix<const Out> z, float beta) {
  const auto run = [&](auto rows) {
    constexpr int kColumns = kFewRowsThreads / 32;
    const auto blocks = static_cast<unsigned>(ceil_div<std::int64_t>(w.rows, kColumns));
    launch(ctx, true, few_rows_kernel<T, Out, rows(), Source>, blocks, kFewRowsThreads,
           static_cast<std::size_t>(rows() * w.cols) * sizeof(T), w, bias, source, y, z, beta);
  };
  if (y.rows == 1) return run(std::integral_constant<int, 1>{});
  run(std::integral_constant<int, kFewRows>{});
}

template <class T, class B>
__global__ void add_bias_kernel(DeviceMatrix<T> y, const B* bias) {
  for (std::int64_t i = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x; i < y.rows * y.cols;
       i += std::int64_t{gridDim.x} * blockDim.x) {
    const std::int64_t j = i % y.cols;
    T& to = y.row(i / y.cols)[j];
    to = from_float<T>(to_float(to) + to_float(bias[j]));
  }
}

// 32 columns and a share of the rows each block; sums[part][column].
template <class T>
__global__ void column_part_kernel(DeviceMatrix<const T> x, std::int64_t rows_a_part, float* sums) {
  __shared__ float tile[8][33];
  const std::int64_t column = blockIdx.x * 32 + threadIdx.x;
  const std::int64_t first = blockIdx.y * rows_a_part;
  const std::int64_t last = min(first + rows_a_part, x.rows);
  float sum = 0.0f;
  if (column < x.cols)
    for (std::int64_t r = first + threadIdx.y; r < last; r += 8) sum += to_float(x.row(r)[column]);
  tile[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || column >= x.cols) return;
  for (int i = 1; i < 8; ++i) sum += tile[i][threadIdx.x];
  sums[blockIdx.y * x.cols + column] = sum;
}

// out[j] += sum over parts, then over the `groups` that share column j: always in the same order.
template <class T>
__global__ void add_parts_kernel(const T* sums, std::int64_t parts, std::int64_t width, int groups,
                                 T* out) {
  __shared__ T tile[8][33];
  const std::int64_t column = blockIdx.x * 32 + threadIdx.x;
  T sum(0);
  if (column < width)
    for (int g = 0; g < groups; ++g)
      for (std::int64_t p = threadIdx.y; p < parts; p += 8)
        sum += sums[(p * groups + g) * width + column];
  tile[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || column >= width) return;
  for (int i = 1; i < 8; ++i) sum += tile[i][threadIdx.x];
  out[column] += sum;
}

/// out[width] += the sums over parts and groups of sums [parts,groups,width].
inline void add_parts(CudaContext& ctx, const float* sums, std::int64_t parts, int groups,
                      std::int64_t width, float* out) {
  const auto blocks = static_cast<unsigned>((width + 31) / 32);
  add_parts_kernel<float>
      <<<blocks, dim3(32, 8), 0, ctx.stream()>>>(sums, parts, width, groups, out);
  RETNET_CUDA_LAUNCHED("add_parts", concat("[", parts, ",", groups, ",", width, "]"));
}

}  // namespace cuda

/// y [R,out] = x [R,in] weight [out,in]^T + bias [out] + beta z [R,out]. bias may be null, z empty; z
/// may be y. Throws std::invalid_argument where shapes do not fit, CudaError where cuBLASLt has no way.
/// Products of few rows read `weight` while the kernel launched before may still run: where that one
/// wrote the weights, another kernel or a synchronisation must come in between. x, z and bias may be
/// of the kernel before.
template <class T, class Out>
void linear(CudaContext& ctx, DeviceMatrix<const T> weight, const T* bias, DeviceMatrix<const T> x,
            DeviceMatrix<Out> y, DeviceMatrix<const Out> z = {}, float beta = 0.0f) {
  RETNET_CUDA_REQUIRE(x.rows == y.rows && x.cols == weight.cols && y.cols == weight.rows,
                      "cuda::linear", x.text(), " by weights ", weight.text(), " to ", y.text());
  if (y.rows == 0 || y.cols == 0) return;
  if (cuda::few_rows_serve(weight, x.rows) && cuda::packs(x))
    return cuda::few_rows<T, Out>(ctx, weight, bias, cuda::PlainSource<T>{x}, y, z, beta);
  const bool fused = std::is_same_v<T, Out>;
  cuda::product<T, Out>(ctx, false, x, true, weight, z ? beta : 0.0f, z, y, fused ? bias : nullptr);
  if (fused || bias == nullptr) return;
  cuda::add_bias_kernel<<<4 * ctx.multiprocessors(), 256, 0, ctx.stream()>>>(y, bias);
  RETNET_CUDA_LAUNCHED("add_bias", y.text());
}

/// dx = dy W + beta z.
template <class T>
void linear_backward_input(CudaContext& ctx, DeviceMatrix<const T> weight, DeviceMatrix<const T> dy,
                           DeviceMatrix<T> dx, DeviceMatrix<const T> z = {}, float beta = 0.0f) {
  cuda::product<T, T>(ctx, false, dy, false, weight, z ? beta : 0.0f, z, dx);
}

/// dW += dy^T x, in float.
template <class T>
void linear_backward_weight(CudaContext& ctx, DeviceMatrix<const T> x, DeviceMatrix<const T> dy,
                            DeviceMatrix<float> dweight) {
  cuda::product<T, float>(ctx, true, dy, false, x, 1.0f, {}, dweight);
}

/// db += sum over rows of dy, in an order that depends on the shape alone.
template <class T>
void bias_backward(CudaContext& ctx, DeviceMatrix<const T> dy, float* dbias) {
  const std::int64_t parts = std::clamp<std::int64_t>(dy.rows / 128, 1, 256);
  const std::int64_t rows_a_part = (dy.rows + parts - 1) / parts;
  const auto scope = ctx.workspace().scope();
  float* sums = ctx.workspace().take<float>(parts * dy.cols);
  const dim3 grid(static_cast<unsigned>((dy.cols + 31) / 32), static_cast<unsigned>(parts));
  cuda::column_part_kernel<<<grid, dim3(32, 8), 0, ctx.stream()>>>(dy, rows_a_part, sums);
  RETNET_CUDA_LAUNCHED("column_part", dy.text());
  cuda::add_parts(ctx, sums, parts, 1, dy.cols, dbias);
}

}  // namespace retnet
