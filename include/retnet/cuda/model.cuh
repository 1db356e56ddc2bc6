// SPDX-License-Identifier: MIT
// CudaRetNetModel: the language model on the device. Weights, gradients and moments are flat buffers
// with the layout of the CPU's RetNetModel, so checkpoints and states go either way.
//
//   CudaContext ctx;
//   CudaRetNetModel<> model(ctx, cpu_model);           // weights become bfloat16
//   auto state  = model.initial_state(ctx, 1);
//   auto logits = model.logits(ctx, Form::chunkwise(), Sequences::dense(1, n), tokens, &state);
//
// One model serves any number of contexts, each in a thread of its own: what a pass needs besides the
// weights lies in the context, and the methods that run one are const. Only training writes weights;
// synchronize its context before another one reads them. After an exception that is no
// std::invalid_argument the state may be half advanced: reset it.
//
// Served: every config whose mixers are retention with a fixed decay. Not served, with an exception
// that says so: attention layers, a cross-decoder, dropout, gated decay, and the normalisations
// paper_score, torchscale and torchscale_v1.
#pragma once

#include <cmath>
#include <memory>
#include <vector>

#include "retnet/cuda/block.cuh"
#include "retnet/cuda/cross_entropy.cuh"
#include "retnet/cuda/embedding.cuh"
#include "retnet/cuda/model_state.cuh"

namespace retnet {

namespace cuda {

template <class Position>
__global__ void advance_kernel(Position* positions, DeviceSequences sequences) {
  wait_for_previous_kernel();
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < sequences.count) positions[i] += sequences.length_of(i);
}

/// What a pass sends to the device, in the context.
struct PassUpload {
  Int32Upload sent;
  TokenOrder order;
  std::vector<std::int32_t> cu_seqlens;  // empty: dense
};

/// Throws std::invalid_argument where a config asks for what the device has no kernels for.
inline void check_served(const RetNetConfig& c) {
  constexpr const char* kWhere = "CudaRetNetModel";
  constexpr const char* kMend = "\n  mend: run this model on the CPU\n  see: retnet/cuda/model.cuh";
  c.validate();
  RETNET_CUDA_REQUIRE(c.attention.empty(), kWhere, "attention layers are not served", kMend);
  RETNET_CUDA_REQUIRE(c.cross_decoder.layers == 0, kWhere, "a cross-decoder is not served", kMend);
  RETNET_CUDA_REQUIRE(c.dropout == 0.0 && c.feed_forward.activation_dropout == 0.0, kWhere,
                      "dropout is not served\n  mend: set it to 0\n  see: retnet/cuda/model.cuh");
  const auto& r = c.retention;
  RETNET_CUDA_REQUIRE(r.decay != DecayKind::gated, kWhere, "a gated decay is not served", kMend);
  RETNET_CUDA_REQUIRE(
      r.normalization == Normalization::none || r.normalization == Normalization::row_sum, kWhere,
      "only Normalization::none and row_sum are served", kMend);
  RETNET_CUDA_REQUIRE(r.heads <= kMaxDeviceHeads, kWhere, "heads = ", r.heads, ", at most ",
                      kMaxDeviceHeads, " are served", kMend);
}

}  // namespace cuda

template <class T = __nv_bfloat16>
class CudaRetNetModel {
  using In = DeviceMatrix<const T>;
  using Out = DeviceMatrix<T>;

 public:
  using State = CudaModelState;
  static constexpr const char* kName = "CudaRetNetModel";

  /// What backward needs of forward. With `recompute` one block's activations exist at a time.
  struct Saved {
    bool recompute = false;
    std::vector<Out> inputs;  // of each block, then of the final norm
    Out embedded;             // before the embedding norm
    std::vector<DeviceBlockSaved<T>> blocks;
    State initial;
    DeviceBuffer<T> memory;
  };

  template <class W>
  CudaRetNetModel(CudaContext& ctx, const RetNetModel<float, W>& model)
      : CudaRetNetModel(ctx, model.config(), model.layout(), model.weight_buffer()) {}
  /// Weights that lie as `layout` says: a checkpoint.
  template <class W>
  CudaRetNetModel(CudaContext& ctx, const RetNetConfig& config, const ParamLayout& layout,
                  const ParamBuffer<W>& weights)
      : config_(config) {
    ctx.make_current();
    cuda::check_served(config);
    layout_ = RetNetModel<float>::without_weights(config).layout();
    place(ctx);
    weights_.resize(layout_.size());
    const auto host = rearranged<HostWeight>(weights, layout, layout_);
    const auto* raw = reinterpret_cast<const T*>(host.flat().data());
    weights_.upload({raw, host.flat().size()}, ctx.stream());
  }

  const RetNetConfig& config() const { return config_; }
  const ParamLayout& layout() const { return layout_; }
  DeviceBuffer<T>& weights() { return weights_; }
  const DeviceBuffer<T>& weights() const { return weights_; }

  State initial_state(CudaContext& ctx, int sequences = 1) const {
    const auto& r = config_.retention;
    return State(ctx, config_.layers, sequences, r.heads * r.key_dim() * r.value_dim());
  }

  /// Logits [R,V] on the host. state may be null.
  std::vector<float> logits(CudaContext& ctx, Form form, const Sequences& sequences,
                            std::span<const Token> tokens, State* state) const {
    const auto scope = ctx.workspace().scope();
    const auto rows = static_cast<std::int64_t>(tokens.size());
    const Out h = cuda::take<T>(ctx, rows, config_.d_model);
    hidden(ctx, form, sequences, tokens, state, h);
    std::vector<float> out(static_cast<std::size_t>(rows * config_.vocab));
    for (std::int64_t r = 0; r < rows; r += kLossRows) {
      const auto inner = ctx.workspace().scope();
      const std::int64_t n = std::min(kLossRows, rows - r);
      const auto part = cuda::take<float>(ctx, n, config_.vocab);
      project(ctx, In(h.row_block(r, n)), part);
      RETNET_CUDA(cudaMemcpyAsync(out.data() + r * config_.vocab, part.data,
                                  sizeof(float) * n * config_.vocab, cudaMemcpyDeviceToHost,
                                  ctx.stream()));
      ctx.synchronize();
    }
    return out;
  }

  /// The rows h [R,C] before the output projection. Tokens [R] are on the host; state may be null, else
  /// it is read on from and moved on. Throws std::invalid_argument where they do not fit together.
  void hidden(CudaContext& ctx, Form form, const Sequences& sequences,
              std::span<const Token> tokens, State* state, Out h) const {
    check(sequences, tokens, state);
    const auto scope = ctx.workspace().scope();
    auto& upload = ctx.part<cuda::PassUpload>();
    pack(sequences, upload.cu_seqlens);
    upload.sent.send(ctx, {tokens, upload.cu_seqlens});
    const DevicePass pass = make_pass(ctx, form, sequences, upload, state);
    hidden_rows(ctx, pass, upload.sent.place(0), state, h);
    advance(ctx, pass, sequences, state);
  }

  /// The same for tokens on the device, of sequences of one token each: what a graph captures.
  void hidden_step(CudaContext& ctx, const std::int32_t* tokens, State& state, Out h) const {
    const auto scope = ctx.workspace().scope();
    DevicePass pass{.form = Form::Kind::recurrent,
                    .sequences = DeviceSequences::dense(state.sequences(), 1)};
    pass.angles = make_angles(ctx, theta_, pass.sequences, state.device_positions(), false);
    hidden_rows(ctx, pass, tokens, &state, h);
    advance_device(ctx, pass, state);
  }

  /// Throws std::invalid_argument where sequence i, read up to position `end`, would leave the range of
  /// the xPos scale: hidden_step, which runs without the host, does not look.
  void check_end(Index i, std::int64_t end) const {
    RETNET_CUDA_REQUIRE(largest_xpos_ * static_cast<double>(end) < 80.0, kName, "sequence ", i,
                        " reaches position ", end,
                        ", where the xPos scale leaves the range of float: reset the state");
  }

  /// Logits [R,V] of hidden rows h [R,C], in float or in T.
  template <class L>
  void project(CudaContext& ctx, In h, DeviceMatrix<L> logits) const {
    stage(ctx, Stage::loss);
    linear<T, L>(ctx, weight(output()),
                 output_bias_ ? weights_.data() + output_bias_.offset : nullptr, h, logits);
  }

  /// Adds the summed cross-entropy of `targets` to *loss on the device and scale times its gradient
  /// to dw, the flat gradient. Nothing waits for the device.
  void loss_and_gradient(CudaContext& ctx, Form form, const Sequences& sequences,
                         std::span<const Token> tokens, std::span<const Token> targets,
                         State* state, Saved& saved, float* dw, float scale,
                         DeviceLoss* loss) const {
    check(sequences, tokens, state);
    check_targets(tokens, targets);
    ctx.make_current();
    const auto rows = static_cast<std::int64_t>(tokens.size());
    reserve(ctx, saved, rows, state);
    auto& upload = ctx.part<cuda::PassUpload>();
    auto& order = upload.order;
    order.build(tokens, config_.vocab);
    pack(sequences, upload.cu_seqlens);
    upload.sent.send(ctx,
                     {tokens, upload.cu_seqlens, targets, order.tokens, order.starts, order.rows});
    const auto scope = ctx.workspace().scope();
    const DevicePass pass = make_pass(ctx, form, sequences, upload, state);
    embed(ctx, upload.sent.place(0), saved.embedded, saved.inputs[0]);
    for (std::size_t l = 0; l < blocks_.size(); ++l)
      blocks_[l].forward(ctx, weights_.data(), pass, In(saved.inputs[l]), layer(state, l),
                         saved.inputs[l + 1], saved.blocks[saved.recompute ? 0 : l]);
    const Out dh = cuda::take<T>(ctx, rows, config_.d_model);
    loss_rows(ctx, saved, upload.sent.place(2), dw, scale, loss, dh);
    const DeviceTokenOrder places{static_cast<std::int32_t>(order.tokens.size()),
                                  upload.sent.place(3), upload.sent.place(4), upload.sent.place(5)};
    backward(ctx, pass, saved, places, dh, dw);
    advance(ctx, pass, sequences, state);
  }

 private:
  static_assert(std::is_same_v<T, float> || std::is_same_v<T, __nv_bfloat16>,
                "the model computes in __nv_bfloat16, or in float for tests");
  using HostWeight = std::conditional_t<std::is_same_v<T, float>, float, bfloat16>;
  static constexpr std::int64_t kLossRows = 8192;  // rows whose logits exist at one time

  void place(CudaContext& ctx) {
    const auto& c = config_;
    embedding_ = cuda::place_of(layout_, "embed_tokens.weight");
    output_ = cuda::place_of(layout_, "output_projection.weight", false);
    output_bias_ = cuda::place_of(layout_, "output_projection.bias", false);
    if (c.embedding_norm)
      embedding_norm_ = cuda::NormPlace(layout_, "embedding_norm", c.norm, c.norm_eps);
    if (c.final_norm) final_norm_ = cuda::NormPlace(layout_, "final_norm", c.norm, c.norm_eps);
    const BlockConfig block = c.block();
    for (Index l = 0; l < c.layers; ++l)
      blocks_.emplace_back(block, layout_, cuda::concat("layers.", l, "."));
    place_angles(ctx, block.mixer);
  }

  void place_angles(CudaContext& ctx, const RetentionConfig& r) {
    std::vector<double> theta;
    switch (r.theta) {
      case ThetaKind::inclusive: theta = theta_inclusive(r.rotary(), r.theta_base); break;
      case ThetaKind::rotary: theta = theta_rotary(r.rotary(), r.theta_base); break;
      case ThetaKind::values: theta = r.theta_values; break;
    }
    if (r.rotation == RotationLayout::none) theta.clear();
    const auto xpos = r.xpos_base > 0.0 ? log_xpos(r.rotary(), r.xpos_base) : std::vector<double>();
    const auto gamma =
        r.normalization == Normalization::row_sum ? log_gamma_of(r) : std::vector<double>();
    for (const double x : xpos) largest_xpos_ = std::max(largest_xpos_, std::abs(x));
    std::vector<double> all(theta);
    all.insert(all.end(), xpos.begin(), xpos.end());
    all.insert(all.end(), gamma.begin(), gamma.end());
    angle_numbers_.resize(static_cast<std::int64_t>(all.size()));
    angle_numbers_.upload(all, ctx.stream());
    const double* p = angle_numbers_.data();
    theta_ = {.layout = r.rotation == RotationLayout::none ? DeviceRotationLayout::none
                        : r.rotation == RotationLayout::interleaved
                            ? DeviceRotationLayout::interleaved
                            : DeviceRotationLayout::half_split,
              .pairs = static_cast<int>(theta.size()),
              .heads = static_cast<int>(r.heads),
              .theta = p,
              .log_xpos = xpos.empty() ? nullptr : p + theta.size(),
              .log_gamma = gamma.empty() ? nullptr : p + theta.size() + xpos.size()};
  }

  // ---- what is asked of the caller ----

  void check(const Sequences& sequences, std::span<const Token> tokens, const State* state) const {
    RETNET_CUDA_REQUIRE(!tokens.empty() && std::ssize(tokens) == sequences.rows(), kName,
                        tokens.size(), " tokens, the sequences cover ", sequences.rows(), " rows");
    RETNET_CUDA_REQUIRE(!sequences.padded(), kName,
                        "padded sequences are not served, expected dense or packed ones");
    for (const Token t : tokens)
      RETNET_CUDA_REQUIRE(t >= 0 && t < config_.vocab, kName, "token ", t,
                          ", expected 0 <= token < vocab = ", config_.vocab);
    RETNET_CUDA_REQUIRE(
        !state || (state->sequences() == sequences.count() && state->layers() == config_.layers),
        kName, "the state holds ", state->sequences(), " sequences, tokens ", sequences.count());
    for (Index i = 0; i < sequences.count(); ++i)
      check_end(
          i, sequences[i].length + (state ? state->positions()[static_cast<std::size_t>(i)] : 0));
  }
  void check_targets(std::span<const Token> tokens, std::span<const Token> targets) const {
    RETNET_CUDA_REQUIRE(targets.size() == tokens.size(), kName, targets.size(), " targets for ",
                        tokens.size(), " tokens");
    for (const Token t : targets)
      RETNET_CUDA_REQUIRE(t == kIgnore || (t >= 0 && t < config_.vocab), kName, "target ", t,
                          ", expected 0 <= target < vocab = ", config_.vocab, ", or kIgnore");
  }

  // ---- a pass ----

  static bool dense(const Sequences& s) {
    const Index n = s[0].length;
    for (Index i = 0; i < s.count(); ++i)
      if (s[i].length != n) return false;
    return true;
  }
  static void pack(const Sequences& s, std::vector<std::int32_t>& cu_seqlens) {
    cu_seqlens.clear();
    if (dense(s)) return;
    cu_seqlens.push_back(0);
    for (Index i = 0; i < s.count(); ++i)
      cu_seqlens.push_back(static_cast<std::int32_t>(s[i].first_row + s[i].length));
  }
  // Part 1 of what was sent is cu_seqlens.
  DevicePass make_pass(CudaContext& ctx, Form form, const Sequences& s,
                       const cuda::PassUpload& upload, State* state) const {
    DevicePass pass{.form = form.kind};
    const auto n = static_cast<int>(s.count());
    bool together = upload.cu_seqlens.empty();
    pass.sequences = together
                         ? DeviceSequences::dense(n, s[0].length)
                         : DeviceSequences::packed(n, s.rows(), s.longest(), upload.sent.place(1));
    if (state)
      for (const auto p : state->positions()) together &= p == state->positions()[0];
    stage(ctx, Stage::rows);
    pass.angles = make_angles(ctx, theta_, pass.sequences,
                              state ? state->device_positions() : nullptr, together);
    return pass;
  }
  void advance_device(CudaContext& ctx, const DevicePass& pass, State& state) const {
    const auto n = static_cast<unsigned>(state.sequences());
    cuda::launch(ctx, true, cuda::advance_kernel<std::int64_t>, (n + 63) / 64, 64, 0,
                 state.device_positions(), pass.sequences);
  }
  void advance(CudaContext& ctx, const DevicePass& pass, const Sequences& s, State* state) const {
    if (!state) return;
    advance_device(ctx, pass, *state);
    for (Index i = 0; i < s.count(); ++i) state->advance(i, s[i].length);
  }
  static float* layer(State* state, std::size_t l) {
    return state ? state->layer(static_cast<std::int64_t>(l)) : nullptr;
  }

  Param output() const { return config_.tied_output ? embedding_ : output_; }
  In weight(Param p) const { return {weights_.data() + p.offset, p.rows, p.cols}; }
  float embedding_scale() const {
    return config_.scale_embedding
               ? static_cast<float>(std::sqrt(static_cast<double>(config_.d_model)))
               : 1.0f;
  }

  void embed(CudaContext& ctx, const std::int32_t* tokens, Out embedded, Out x) const {
    stage(ctx, Stage::embedding);
    embedding<T>(ctx, embedding_scale(), tokens, weight(embedding_),
                 embedding_norm_ ? embedded : x);
    if (embedding_norm_) embedding_norm_.forward(ctx, weights_.data(), In(embedded), x);
  }

  void hidden_rows(CudaContext& ctx, const DevicePass& pass, const std::int32_t* tokens,
                   State* state, Out h) const {
    const auto scope = ctx.workspace().scope();
    const std::int64_t rows = pass.sequences.rows;
    Out x = cuda::take<T>(ctx, rows, config_.d_model),
        y = cuda::take<T>(ctx, rows, config_.d_model);
    T* memory = ctx.workspace().take<T>(blocks_[0].saved_size(rows));
    const auto s = blocks_[0].carve(memory, rows);
    embed(ctx, tokens, y, x);
    for (std::size_t l = 0; l < blocks_.size(); ++l) {
      const bool last = l + 1 == blocks_.size() && !final_norm_;
      const Out to = last ? h : y;
      blocks_[l].forward(ctx, weights_.data(), pass, In(x), layer(state, l), to, s);
      std::swap(x, y);
    }
    if (final_norm_) final_norm_.forward(ctx, weights_.data(), In(x), h);
  }

  // ---- training ----

  void reserve(CudaContext& ctx, Saved& s, std::int64_t rows, const State* state) const {
    const std::size_t kept = s.recompute ? 1 : blocks_.size();
    const std::int64_t one = cuda::Carver<T>::size(rows, config_.d_model);
    const std::int64_t block = blocks_[0].saved_size(rows);
    const auto inputs = static_cast<std::int64_t>(blocks_.size() + 1);
    s.memory.resize((inputs + 1) * one + static_cast<std::int64_t>(kept) * block);
    cuda::Carver<T> carve(s.memory.data(), rows);
    s.embedded = carve(config_.d_model);
    s.inputs.resize(static_cast<std::size_t>(inputs));
    for (auto& x : s.inputs) x = carve(config_.d_model);
    T* base = s.memory.data() + (inputs + 1) * one;
    s.blocks.clear();
    for (std::size_t l = 0; l < kept; ++l)
      s.blocks.push_back(blocks_[l].carve(base + static_cast<std::int64_t>(l) * block, rows));
    if (state) s.initial.copy_from(ctx, *state);
    if (!state) s.initial = State();
    // one block of scratch for all of it: pieces of many sizes would not fit into each other's
    const auto scope = ctx.workspace().scope();
    const std::int64_t logits = std::min(kLossRows, rows) * config_.vocab;
    ctx.workspace().take<std::byte>(
        std::max<std::int64_t>(
            logits * static_cast<std::int64_t>(sizeof(T)) + 2 * cuda::Blas::kWorkspace,
            blocks_[0].scratch_bytes(rows)) +
        6 * one * static_cast<std::int64_t>(sizeof(T)) + angle_bytes(rows));
  }
  std::int64_t angle_bytes(std::int64_t rows) const {
    return rows * (theta_.pairs * 16 + theta_.heads * 4) + 1024;
  }

  // The final norm, the loss, and dh = the gradient of the last block's output.
  void loss_rows(CudaContext& ctx, const Saved& s, const std::int32_t* targets, float* dw,
                 float scale, DeviceLoss* loss, Out dh) const {
    const auto scope = ctx.workspace().scope();
    const std::int64_t rows = dh.rows;
    const Out last = s.inputs.back();
    Out h = last;
    if (final_norm_) {
      h = cuda::take<T>(ctx, rows, config_.d_model);
      final_norm_.forward(ctx, weights_.data(), In(last), h);
    }
    const Param out = output();
    for (std::int64_t r = 0; r < rows; r += kLossRows) {  // logits become their gradient in place
      const auto inner = ctx.workspace().scope();
      const std::int64_t n = std::min(kLossRows, rows - r);
      const Out logits = cuda::take<T>(ctx, n, config_.vocab);
      project(ctx, In(h.row_block(r, n)), logits);
      cross_entropy<T>(ctx, targets + r, logits, scale, loss);
      linear_backward_weight<T>(ctx, In(h.row_block(r, n)), In(logits),
                                {dw + out.offset, out.rows, out.cols});
      if (output_bias_) bias_backward<T>(ctx, In(logits), dw + output_bias_.offset);
      linear_backward_input<T>(ctx, weight(out), In(logits), dh.row_block(r, n));
    }
    if (final_norm_) final_norm_.backward(ctx, weights_.data(), In(last), In(dh), dw, {.dx = dh});
  }

  void backward(CudaContext& ctx, const DevicePass& pass, Saved& s, const DeviceTokenOrder& order,
                Out dh, float* dw) const {
    const auto scope = ctx.workspace().scope();
    Out dy = dh, dx = cuda::take<T>(ctx, dh.rows, config_.d_model);
    const Out again = s.recompute ? cuda::take<T>(ctx, dh.rows, config_.d_model) : Out();
    for (std::size_t l = blocks_.size(); l-- > 0;) {
      const In x = s.inputs[l];
      const auto& saved = s.blocks[s.recompute ? 0 : l];
      const float* initial =
          s.initial.empty() ? nullptr : s.initial.layer(static_cast<std::int64_t>(l));
      if (s.recompute) recompute(ctx, pass, l, x, initial, again, saved);
      blocks_[l].backward(ctx, weights_.data(), pass, x, initial, saved, In(dy), dw, dx);
      std::swap(dy, dx);
    }
    if (embedding_norm_)
      embedding_norm_.backward(ctx, weights_.data(), In(s.embedded), In(dy), dw, {.dx = dy});
    stage(ctx, Stage::embedding);
    embedding_backward<T>(ctx, embedding_scale(), order, In(dy),
                          {dw + embedding_.offset, embedding_.rows, embedding_.cols});
  }

  void recompute(CudaContext& ctx, const DevicePass& pass, std::size_t l, In x,
                 const float* initial, Out again, const DeviceBlockSaved<T>& saved) const {
    const auto scope = ctx.workspace().scope();
    float* state = nullptr;
    if (initial != nullptr) {  // forward would overwrite what backward needs
      const auto& r = config_.retention;
      const std::int64_t n =
          pass.sequences.count * std::int64_t{r.heads} * r.key_dim() * r.value_dim();
      state = ctx.workspace().take<float>(n);
      RETNET_CUDA(cudaMemcpyAsync(state, initial, DeviceBuffer<float>::bytes(n),
                                  cudaMemcpyDeviceToDevice, ctx.stream()));
    }
    blocks_[l].forward(ctx, weights_.data(), pass, x, state, again, saved);
  }

  RetNetConfig config_;
  ParamLayout layout_;
  Param embedding_, output_, output_bias_;
  cuda::NormPlace embedding_norm_, final_norm_;
  std::vector<DeviceBlock<T>> blocks_;
  DeviceBuffer<T> weights_;
  DeviceBuffer<double> angle_numbers_;
  DeviceTheta theta_;
  double largest_xpos_ = 0.0;
};

}  // namespace retnet
