// SPDX-License-Identifier: MIT
// A whole block: the four residuals, both norms, DeepNorm, dropout; forms and backward.

#include "retnet/layers/retnet_block.hpp"

#include <gtest/gtest.h>

#include "layers/errors.hpp"
#include "layers/gradients.hpp"
#include "support/gradcheck.hpp"

namespace retnet::test {
namespace {

struct Named {
  std::string name;
  BlockConfig config;
};

std::vector<Named> blocks() {
  std::vector<Named> out;
  const auto some = some_variants();
  std::size_t next = 0;
  const char* const names[] = {" pre", " post", " branch", " parallel"};
  for (const Residual residual :
       {Residual::pre, Residual::post, Residual::branch, Residual::parallel})
    for (const NormKind norm : {NormKind::rms, NormKind::layer})
      for (const double alpha : {1.0, 1.7})
        for (const FeedForwardKind kind : {FeedForwardKind::mlp, FeedForwardKind::glu}) {
          if (residual == Residual::parallel && alpha != 1.0) continue;
          const auto& v = some[next++ % some.size()];
          BlockConfig c{.mixer = v.config};
          c.mixer.head_norm_eps = 1.0;  // see retention_gradient_test.cpp
          c.feed_forward = {
              .d_model = c.mixer.d_model,
              .hidden = 19,
              .kind = kind,
              .activation = kind == FeedForwardKind::mlp ? Activation::gelu : Activation::swish,
              .bias = kind == FeedForwardKind::mlp};
          c.norm = norm;
          c.norm_eps = 1e-3;
          c.residual = residual;
          c.alpha = alpha;
          const bool may_lack_norm = residual == Residual::pre || residual == Residual::parallel;
          c.ffn_norm = !(may_lack_norm && norm == NormKind::layer && alpha == 1.0);
          if (next % 3 == 0) c.feed_forward.sub_norm = norm;
          c.feed_forward.sub_norm_eps = 1e-2;
          out.push_back({v.name + names[static_cast<int>(residual)] +
                             (norm == NormKind::rms ? " rms" : " layer") + " alpha " +
                             std::to_string(alpha),
                         c});
        }
  return out;
}

/// A block with weights of order one beside it.
template <class S>
class Weighted {
 public:
  using State = typename RetNetBlock<S>::State;

  explicit Weighted(const BlockConfig& config)
      : block_(config), weights_(random_weights<S>(block_.layout())) {}
  const ParamLayout& layout() const { return block_.layout(); }
  ParamRef<const S> weights() const { return weights_.ref(); }
  State initial_state(Index sequences) const { return block_.initial_state(sequences); }
  template <class... Arguments>
  void forward(Arguments&&... arguments) const {
    block_.forward(std::forward<Arguments>(arguments)...);
  }

 private:
  RetNetBlock<S> block_;
  ParamBuffer<S> weights_;
};

template <class S>
void expect_equal_forms(const Named& b) {
  const Weighted<S> block(b.config);
  Cpu ctx;
  Reference plain;
  for (const Index length : {1, 2, 65}) {
    const auto sequences = Sequences::dense(2, length);
    const auto x = random_normal<S>(2 * length * b.config.mixer.d_model, 1);
    auto oracle_state = block.initial_state(2);
    const auto oracle = run(plain, block, Form::parallel(), sequences, x, &oracle_state);
    for (const Form form : forms(length)) {
      auto state = block.initial_state(2);
      EXPECT_LE(relative_error(run(ctx, block, form, sequences, x, &state), oracle), tolerance<S>())
          << b.name << " " << form.name() << form.chunk;
      EXPECT_LE(state_error(state, oracle_state), tolerance<S>()) << b.name << " " << form.name();
    }
  }
}

TEST(RetNetBlock, FormsAreEqual) {
  for (const auto& b : blocks()) {
    expect_equal_forms<double>(b);
    expect_equal_forms<float>(b);
  }
}

// The formulae at the head of retnet_block.hpp.
TEST(RetNetBlock, IsItsPartsInOrder) {
  for (const auto& b : blocks()) {
    const Weighted<double> block(b.config);
    const auto& layout = block.layout();
    const Index width = b.config.mixer.d_model, rows_count = 9;
    const auto sequences = Sequences::dense(1, rows_count);
    const Pass pass{Form::parallel(), sequences};
    const auto w = block.weights();
    Reference ctx;
    const auto x = random_normal<double>(rows_count * width, 1);

    ParamLayout again;  // the same parts over the same buffer
    const MultiScaleRetention<double> mixer(b.config.mixer, again, "retention.");
    const BlockNorm mixer_norm(b.config.norm, b.config.norm_eps, width, again, "retention_norm");
    const FeedForward<double> ffn(b.config.feed_forward, again, "ffn.");
    BlockNorm ffn_norm;
    if (b.config.ffn_norm)
      ffn_norm = BlockNorm(b.config.norm, b.config.norm_eps, width, again, "ffn_norm");
    ASSERT_EQ(again.size(), layout.size());

    using In = Window<const double>;
    const auto window = [&](Buffer<double>& a) {
      return Window<double>(a.data(), rows_count, width);
    };
    const auto in = [&](const Buffer<double>& a) { return In(a.data(), rows_count, width); };
    const auto norm_of = [&](const BlockNorm& norm, const Buffer<double>& a) {
      Buffer<double> out(a.size());
      norm.forward(ctx, w, in(a), window(out));
      return out;
    };
    const auto plus = [&](const Buffer<double>& a, Buffer<double> branch) {
      for (Index i = 0; i < a.size(); ++i) branch[i] += b.config.alpha * a[i];
      return branch;
    };
    const auto half = [&](const BlockNorm& norm, const Buffer<double>& a,
                          const Buffer<double>& residual, auto&& part) {
      Buffer<double> branch(a.size());
      switch (b.config.residual) {
        case Residual::pre:
        case Residual::parallel: part(norm ? norm_of(norm, a) : a, branch); break;
        case Residual::post: part(a, branch); return norm_of(norm, plus(residual, branch));
        case Residual::branch: part(a, branch); return plus(residual, norm_of(norm, branch));
      }
      return plus(residual, branch);
    };
    const auto h = half(mixer_norm, x, x, [&](const Buffer<double>& a, Buffer<double>& out) {
      mixer.forward_rows(ctx, w, pass, in(a), nullptr, window(out), nullptr);
    });
    const bool at_once = b.config.residual == Residual::parallel;
    const auto y = half(ffn_norm, at_once ? x : h, h,
                        [&](const Buffer<double>& a, Buffer<double>& out) {
                          ffn.forward_rows(ctx, w, pass, in(a), window(out), nullptr);
                        });
    EXPECT_LE(relative_error(run(ctx, block, Form::parallel(), sequences, x), y), 1e-14) << b.name;
  }
}

void expect_finite_differences(const Named& b, const DropoutKey* dropout, Form form,
                               bool with_state) {
  const RetNetBlock<double> block(b.config);
  Cpu ctx;
  LossOf<RetNetBlock<double>, double> f(block, Sequences::dense(2, 4), b.config.mixer.d_model,
                                        with_state);
  f.dropout = dropout;
  const auto g = f.gradient(ctx, form);
  const auto loss = [&] { return f.loss(ctx, form); };
  EXPECT_LE(gradient_error(f.x.span(), g.dx.span(), loss, 24), 1e-6) << b.name << " x";
  for (const auto& entry : block.layout().entries()) {
    const auto n = static_cast<std::size_t>(entry.place.size());
    EXPECT_LE(gradient_error({f.weights[entry.place].data, n},
                             std::span<const double>(g.dw[entry.place].data, n), loss, 8),
              1e-6)
        << b.name << " " << entry.name;
  }
  if (!with_state) return;
  EXPECT_LE(gradient_error(f.initial.flat(), std::as_const(g.dstate).flat(), loss, 16), 1e-6)
      << b.name;
}

TEST(RetNetBlock, BackwardMatchesFiniteDifferences) {
  for (const auto& b : blocks()) {
    expect_finite_differences(b, nullptr, Form::parallel(), false);
    expect_finite_differences(b, nullptr, Form::chunkwise(3), true);
  }
}

TEST(RetNetBlock, BackwardUnderDropoutMatchesFiniteDifferences) {
  const DropoutKey key{Seed{1}, 7};
  for (auto b : blocks()) {
    b.config.dropout = 0.2;
    b.config.feed_forward.activation_dropout = 0.3;
    expect_finite_differences(b, &key, Form::parallel(), true);
  }
}

TEST(RetNetBlock, DropoutActsOnlyWithAKey) {
  auto config = blocks().front().config;
  const Weighted<double> plain(config);
  config.dropout = 0.5;
  const Weighted<double> dropping(config);
  const auto x = random_normal<double>(6 * config.mixer.d_model, 1);
  const auto sequences = Sequences::dense(1, 6);
  Cpu ctx;
  const auto y = run(ctx, plain, Form::parallel(), sequences, x);
  EXPECT_TRUE(same_bits(run(ctx, dropping, Form::parallel(), sequences, x), y));
  const auto with_key = [&](DropoutKey key, Index layer) {
    Buffer<double> out(x.size());
    const std::array<Index, 3> dims{1, 6, config.mixer.d_model};
    dropping.forward(ctx, dropping.weights(), Pass{Form::parallel(), sequences, &key, layer},
                     ConstView<double, 3>(x.data(), dims), nullptr,
                     View<double, 3>(out.data(), dims));
    return out;
  };
  const auto z = with_key({Seed{1}, 1}, 0);
  EXPECT_FALSE(same_bits(z, y));
  EXPECT_TRUE(same_bits(with_key({Seed{1}, 1}, 0), z));   // the key decides
  EXPECT_FALSE(same_bits(with_key({Seed{1}, 2}, 0), z));  // another step
  EXPECT_FALSE(same_bits(with_key({Seed{2}, 1}, 0), z));  // another seed
  EXPECT_FALSE(same_bits(with_key({Seed{1}, 1}, 1), z));  // another layer
}

template <class S>
void expect_one_gradient(const Named& b, double limit) {
  const RetNetBlock<S> block(b.config);
  const LossOf<RetNetBlock<S>, S> f(block, Sequences::dense(2, 33), b.config.mixer.d_model,
                                    true);
  Cpu ctx;
  Reference plain;
  const auto oracle = f.gradient(plain, Form::parallel());
  for (const Form form : forms(33))
    EXPECT_LE(worst_error(block, f.gradient(ctx, form), oracle), limit)
        << b.name << " " << form.name() << form.chunk;
}

TEST(RetNetBlock, GradientsAreTheSameInEveryForm) {
  for (const auto& b : blocks()) {
    expect_one_gradient<double>(b, 1e-11);
    expect_one_gradient<float>(b, 1e-5);
  }
}

TEST(RetNetBlock, RefusesWhatDoesNotFit) {
  BlockConfig good{.mixer = {.d_model = 8, .heads = 2}, .feed_forward = {.d_model = 8}};
  const auto expect = [&](auto&& change, const std::vector<std::string>& parts) {
    auto config = good;
    change(config);
    auto all = parts;
    all.emplace_back("RetNetBlock");
    expect_error([&] { RetNetBlock<float> block(config); }, all);
  };
  expect([](auto& c) { c.feed_forward.d_model = 9; },
         {"mixer.d_model = 8", "feed_forward.d_model = 9"});
  expect([](auto& c) { c.norm = NormKind::none; }, {"NormKind::none"});
  expect([](auto& c) { c.alpha = 0.0; }, {"alpha = 0"});
  expect([](auto& c) { c.alpha = std::nan(""); }, {"alpha = nan"});
  expect([](auto& c) { c.norm_eps = std::nan(""); }, {"norm_eps = nan"});
  expect([](auto& c) { c.dropout = 1.0; }, {"dropout = 1", "[0, 1)"});
  expect([](auto& c) { c.residual = Residual::parallel, c.alpha = 2.0; },
         {"alpha = 2", "Residual::parallel"});
  for (const Residual residual : {Residual::post, Residual::branch})
    expect([&](auto& c) { c.residual = residual, c.ffn_norm = false; },
           {"ffn_norm is false", "Residual::pre or parallel"});
  expect([](auto& c) { c.mixer.heads = 3; }, {"d_key = 8", "heads = 3"});

  const RetNetBlock<float> block(good);
  const RowMajorMatrixOf<float> wide = RowMajorMatrixOf<float>::Zero(3, 9);
  expect_error([&] { (void)block.forward_parallel(wide); }, {"[1,3,9]", "d_model = 8"});
  auto two = block.initial_state(2);
  const RowMajorMatrixOf<float> x = RowMajorMatrixOf<float>::Zero(3, 8);
  expect_error([&] { (void)block.forward_recurrent(x, two); }, {"2 sequences", "x holds 1"});
  const RowMajorMatrixOf<float> none(0, 8);
  expect_error([&] { (void)block.forward_parallel(none); }, {"RetNetBlock", "[1,0,8]"});
  Cpu ctx;
  Buffer<float> a = random_normal<float>(24, 1), y(24);
  expect_error(
      [&] {
        block.forward(ctx, Form::parallel(), ConstView<float, 3>(a.data(), {1, 3, 8}),
                      static_cast<RetentionState<float>*>(nullptr),
                      View<float, 3>(y.data(), {3, 1, 8}));
      },
      {"RetNetBlock", "y is [3,1,8]", "x is [1,3,8]"});
}

TEST(RetNetBlockWeights, ComeFromElsewhere) {
  BlockConfig config{.mixer = {.d_model = 16, .heads = 2}, .feed_forward = {.d_model = 16}};
  const RetNetBlock<float> block(config, Seed{5});
  const RetNetBlock<float> same(config, block.weight_buffer());
  const RetNetBlock<float, bfloat16> half(config, block.weight_buffer().cast<bfloat16>());
  Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> x(7, 16);
  for (Index i = 0; i < x.size(); ++i)
    x.data()[i] = static_cast<float>(normal(Seed{6}, 0, static_cast<std::uint64_t>(i)));
  const auto y = block.forward_parallel(x);
  EXPECT_EQ((y - same.forward_parallel(x)).norm(), 0.0F);
  EXPECT_LT((y - half.forward_parallel(x)).norm(), 0.02F * y.norm());

  config.mixer.d_model = config.feed_forward.d_model = 32;
  EXPECT_THROW(RetNetBlock<float>(config, block.weight_buffer()), std::invalid_argument);
}

}  // namespace
}  // namespace retnet::test
