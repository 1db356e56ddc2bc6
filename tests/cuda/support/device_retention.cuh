// SPDX-License-Identifier: MIT
// The numbers of a case in device memory, in type T. Rows lie further apart than they are long, and
// what the ops do not write stays NaN.
#pragma once

#include <string>
#include <vector>

#include "cuda/support/instances.cuh"
#include "cuda/support/retention_oracle.hpp"

namespace retnet::test {

template <class T>
T rounded(double x) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    return __double2bfloat16(x);
  } else if constexpr (std::is_same_v<T, __half>) {
    return __double2half(x);
  } else {
    return static_cast<T>(x);
  }
}

/// The numbers as T can say them: what the oracle must be given.
template <class T>
RetentionNumbers rounded(RetentionNumbers n) {
  for (auto* x : {&n.q, &n.k, &n.v, &n.d_o})
    for (double& e : *x) e = static_cast<double>(static_cast<float>(rounded<T>(e)));
  for (auto* x : {&n.state, &n.dstate, &n.log_gate})
    for (double& e : *x) e = static_cast<float>(e);
  return n;
}

/// A matrix whose rows are `gap` elements longer than they need be.
template <class T>
class DeviceMatrix {
 public:
  DeviceMatrix() = default;
  /// Unwritten: all NaN.
  DeviceMatrix(int rows, int cols, int gap) : rows_(rows), cols_(cols), gap_(gap) {
    memory_.resize(std::int64_t{rows} * (cols + gap));
    RETNET_CUDA(cudaMemset(memory_.data(), 0xFF, DeviceBuffer<T>::bytes(memory_.size())));
    RETNET_CUDA(cudaDeviceSynchronize());
  }
  DeviceMatrix(const std::vector<double>& values, int rows, int cols, int gap)
      : DeviceMatrix(rows, cols, gap) {
    auto host = memory_.to_host();
    for (int r = 0; r < rows; ++r)
      for (int c = 0; c < cols; ++c)
        host[at(r, c)] = rounded<T>(values[static_cast<std::size_t>(r) * cols + c]);
    memory_.upload(host, nullptr);
  }
  operator DeviceRows<T>() { return {memory_.data(), cols_ + gap_}; }
  operator DeviceRows<const T>() const { return {memory_.data(), cols_ + gap_}; }

  /// What is between the rows must be as it was.
  std::vector<double> values() const {
    const auto host = memory_.to_host();
    std::vector<double> out;
    for (int r = 0; r < rows_; ++r)
      for (int c = 0; c < cols_ + gap_; ++c) {
        const auto x = static_cast<double>(static_cast<float>(host[at(r, c)]));
        if (c < cols_) out.push_back(x);
        if (c >= cols_ && x == x) out.push_back(x);  // the size is wrong now, and so is the result
      }
    return out;
  }

 private:
  std::size_t at(int r, int c) const {
    return static_cast<std::size_t>(r) * static_cast<std::size_t>(cols_ + gap_) +
           static_cast<std::size_t>(c);
  }
  int rows_ = 0, cols_ = 0, gap_ = 0;
  DeviceBuffer<T> memory_;
};

inline DeviceBuffer<float> on_device(const std::vector<double>& x) {
  const std::vector<float> host(x.begin(), x.end());
  DeviceBuffer<float> out(static_cast<std::int64_t>(host.size()));
  out.upload(host, nullptr);
  return out;
}
inline std::vector<double> on_host(const DeviceBuffer<float>& x) {
  const auto host = x.to_host();
  return {host.begin(), host.end()};
}

enum class DeviceForm { chunkwise, parallel, recurrent };

template <class T>
class DeviceProblem {
 public:
  /// Rows `gap` elements longer: 0 or a multiple of 8 leaves them aligned.
  DeviceProblem(const RetentionCase& c, const RetentionNumbers& n, int gap)
      : case_(c),
        gap_(gap),
        q_(n.q, c.rows(), c.heads * c.key_dim, gap),
        k_(n.k, c.rows(), c.kv_heads * c.key_dim, gap),
        v_(n.v, c.rows(), c.kv_heads * c.value_dim, gap),
        d_o_(n.d_o, c.rows(), c.heads * c.value_dim, gap),
        state_(on_device(n.state)),
        dstate_(on_device(n.dstate)) {
    in_.q = q_, in_.k = k_, in_.v = v_;
    in_.heads = c.heads, in_.kv_heads = c.kv_heads;
    in_.key_dim = c.key_dim, in_.value_dim = c.value_dim;
    for (int h = 0; h < c.heads; ++h)
      in_.decay.log2_gamma[h] =
          static_cast<float>(n.log_gamma[static_cast<std::size_t>(h)] / std::log(2.0));
    in_.sequences = DeviceSequences::dense(c.batch, c.tokens);
    if (!c.cu_seqlens.empty()) {
      cu_seqlens_.resize(static_cast<std::int64_t>(c.cu_seqlens.size()));
      cu_seqlens_.upload(c.cu_seqlens, nullptr);
      in_.sequences =
          DeviceSequences::packed(c.sequences(), c.rows(), c.longest(), cu_seqlens_.data());
    }
    if (c.gate != Gate::none) {
      gate_ = DeviceMatrix<float>(n.log_gate, c.rows(), c.heads, gap);
      in_.log_gate = gate_;
    }
  }

  DeviceRetention<T>& input() { return in_; }

  /// o and the final state. In place or in other memory, by turns.
  RetentionExpected forward(CudaContext& ctx, DeviceForm form, bool in_place = false) {
    DeviceMatrix<T> o(case_.rows(), case_.heads * case_.value_dim, gap_);
    DeviceBuffer<float> initial = copy(state_), final;
    final.resize(in_.state_size());
    const float* from = case_.with_state ? initial.data() : nullptr;
    float* to = in_place && case_.with_state ? initial.data() : final.data();
    if (form == DeviceForm::chunkwise) retention_chunkwise<T>(ctx, in_, from, to, o);
    if (form == DeviceForm::parallel) retention_parallel<T>(ctx, in_, from, to, o);
    if (form == DeviceForm::recurrent) retention_recurrent<T>(ctx, in_, from, to, o);
    ctx.synchronize();
    RetentionExpected out;
    out.o = o.values();
    out.state = on_host(to == final.data() ? final : initial);
    return out;
  }

  RetentionExpected backward(CudaContext& ctx, bool with_decay = true) {
    DeviceMatrix<T> dq(case_.rows(), case_.heads * case_.key_dim, gap_),
        dk(case_.rows(), case_.kv_heads * case_.key_dim, gap_),
        dv(case_.rows(), case_.kv_heads * case_.value_dim, gap_);
    DeviceMatrix<float> dlog(case_.rows(), case_.heads, gap_);
    DeviceBuffer<float> dstate = copy(dstate_);
    DeviceRetentionGradient<T> grad{dq, dk, dv, case_.with_state ? dstate.data() : nullptr, {}};
    if (with_decay) grad.dlog_decay = dlog;
    retention_chunkwise_backward<T>(ctx, in_, case_.with_state ? state_.data() : nullptr, d_o_,
                                    grad);
    ctx.synchronize();
    RetentionExpected out;
    out.dq = dq.values(), out.dk = dk.values(), out.dv = dv.values();
    out.dlog_decay = dlog.values(), out.dstate = on_host(dstate);
    return out;
  }

 private:
  static DeviceBuffer<float> copy(const DeviceBuffer<float>& x) {
    DeviceBuffer<float> out(x.size());
    if (!x.empty()) out.upload(x.to_host(), nullptr);
    return out;
  }

  RetentionCase case_;
  int gap_;
  DeviceMatrix<T> q_, k_, v_, d_o_;
  DeviceMatrix<float> gate_;
  DeviceBuffer<float> state_, dstate_;
  DeviceBuffer<std::int32_t> cu_seqlens_;
  DeviceRetention<T> in_;
};

}  // namespace retnet::test
