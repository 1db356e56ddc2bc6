// SPDX-License-Identifier: MIT
// ggml's scan of a Mamba-2 state. One decay a head, dt = 1 after softplus, B the keys and C the
// queries of groups of one head: S <- gamma S + v k^T, o = S q, which is retention.
#include <ggml-cpu.h>
#include <ggml.h>

#include <cmath>
#include <cstring>

#include "baselines.hpp"

namespace bench {

namespace {

class Scan {
 public:
  explicit Scan(const Problem<>& p) {
    const Shape& s = p.shape;
    // Twice the operands: the result holds outputs and states.
    const auto floats = static_cast<std::size_t>(
        2 * (s.rows() * (s.keys() + s.values()) + s.state_size() + s.rows() * s.heads));
    memory_ = ggml_init({.mem_size = floats * sizeof(float) + (std::size_t{1} << 20),
                         .mem_buffer = nullptr,
                         .no_alloc = false});
    ggml_tensor* state = tensor(s.key_dim, s.value_dim, s.heads, s.batch);
    ggml_tensor* x = tensor(s.value_dim, s.heads, s.tokens, s.batch);
    ggml_tensor* dt = tensor(s.heads, s.tokens, s.batch, 1);
    ggml_tensor* decay = tensor(1, s.heads, 1, 1);
    ggml_tensor* keys = tensor(s.key_dim, s.heads, s.tokens, s.batch);
    ggml_tensor* queries = tensor(s.key_dim, s.heads, s.tokens, s.batch);
    ggml_tensor* order = ggml_new_tensor_1d(memory_, GGML_TYPE_I32, s.batch);
    copy(p.k, keys);
    copy(p.q, queries);
    copy(p.v, x);
    ggml_set_f32(dt, static_cast<float>(std::log(std::expm1(1.0))));
    ggml_set_zero(state);
    for (Index h = 0; h < s.heads; ++h)
      ggml_get_data_f32(decay)[h] = static_cast<float>(p.log_gamma[static_cast<std::size_t>(h)]);
    for (Index b = 0; b < s.batch; ++b)
      static_cast<std::int32_t*>(order->data)[b] = static_cast<std::int32_t>(b);
    out_ = ggml_ssm_scan(memory_, state, x, dt, decay, keys, queries, order, 1);
    graph_ = ggml_new_graph(memory_);
    ggml_build_forward_expand(graph_, out_);
    start_threads(s.threads);
  }
  Scan(const Scan&) = delete;
  Scan& operator=(const Scan&) = delete;
  ~Scan() {
    ggml_threadpool_free(threads_);
    ggml_free(memory_);
  }

  const float* run() {
    ggml_graph_compute(graph_, &plan_);
    return ggml_get_data_f32(out_);
  }

 private:
  ggml_tensor* tensor(Index a, Index b, Index c, Index d) {
    return ggml_new_tensor_4d(memory_, GGML_TYPE_F32, a, b, c, d);
  }
  static void copy(const Buffer<float>& from, ggml_tensor* to) {
    std::memcpy(to->data, from.data(), static_cast<std::size_t>(from.size()) * sizeof(float));
  }

  // Its own workers on the processors after the first, which is that of the main thread.
  void start_threads(int count) {
    auto params = ggml_threadpool_params_default(count);
    const auto& all = processors();
    for (std::size_t i = 1; i < all.size() && count > 1; ++i)
      params.cpumask[all[i]] = params.strict_cpu = true;
    const Unpinned guard;  // the pool moves the main thread as well
    threads_ = ggml_threadpool_new(&params);
    plan_ = ggml_graph_plan(graph_, count, threads_);
    work_.resize(plan_.work_size);
    plan_.work_data = work_.data();
  }

  ggml_context* memory_ = nullptr;
  ggml_tensor* out_ = nullptr;
  ggml_cgraph* graph_ = nullptr;
  ggml_threadpool* threads_ = nullptr;
  ggml_cplan plan_{};
  std::vector<std::uint8_t> work_;
};

}  // namespace

std::function<const float*()> ggml_retention(const Problem<>& p) {
  return [scan = std::make_shared<Scan>(p)] { return scan->run(); };
}

}  // namespace bench
