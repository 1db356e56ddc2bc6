// SPDX-License-Identifier: MIT
// The hand-written backward of MultiScaleRetention: finite differences, and one gradient in all
// forms.

#include <gtest/gtest.h>

#include "layers/gradients.hpp"
#include "retnet/layers/multi_scale_retention.hpp"
#include "support/gradcheck.hpp"

namespace retnet::test {
namespace {

template <class S>
using Layer = MultiScaleRetention<S>;

// x, every weight and the initial state against finite differences of the loss.
void expect_finite_differences(const Layer<double>& layer, const Sequences& sequences, Form form,
                               bool with_state, const std::string& name) {
  constexpr double kLimit = 1e-6;
  Cpu ctx;
  LossOf<Layer<double>, double> f(layer, sequences, layer.config().d_model, with_state);
  const auto g = f.gradient(ctx, form);
  const auto loss = [&] { return f.loss(ctx, form); };
  EXPECT_LE(gradient_error(f.x.span(), g.dx.span(), loss, 16), kLimit) << name << " x";
  for (const auto& entry : layer.layout().entries()) {
    const auto w = f.weights[entry.place];
    const auto dw = g.dw[entry.place];
    const auto n = static_cast<std::size_t>(entry.place.size());
    EXPECT_LE(
        gradient_error(std::span<double>(w.data, n), std::span<const double>(dw.data, n), loss, 10),
        kLimit)
        << name << " " << entry.name;
  }
  if (!with_state) return;
  EXPECT_LE(gradient_error(f.initial.flat(), std::as_const(g.dstate).flat(), loss, 16), kLimit)
      << name << " state";
}

// With a negligible eps the head norm of a first token has unbounded curvature where its score is
// near zero: finite differences and float would measure that and not the code.
Variant smooth(Variant v) {
  v.config.head_norm_eps = 1.0;
  return v;
}

class Gradients : public testing::TestWithParam<std::size_t> {
 protected:
  const Variant v = smooth(variants()[GetParam()]);
};

TEST_P(Gradients, MatchFiniteDifferences) {
  const auto layer = random_layer<Layer<double>>(v.config);
  const auto dense = Sequences::dense(2, 5);
  expect_finite_differences(layer, dense, Form::parallel(), false, v.name + " parallel");
  expect_finite_differences(layer, dense, Form::chunkwise(2), true, v.name + " chunkwise");
}

// What the forms share is one function, so its gradient is one as well.
template <class S>
void expect_one_gradient(const Variant& v, const Sequences& sequences, bool with_state,
                         double limit) {
  const auto layer = random_layer<Layer<S>>(v.config);
  const LossOf<Layer<S>, S> f(layer, sequences, v.config.d_model, with_state);
  Reference plain;
  Cpu ctx;
  const auto oracle = f.gradient(plain, Form::parallel());
  for (const Form form : forms(sequences.longest()))
    EXPECT_LE(worst_error(layer, f.gradient(ctx, form), oracle), limit)
        << v.name << " " << form.name() << form.chunk;
  EXPECT_LE(worst_error(layer, f.gradient(plain, Form::chunkwise(16)), oracle), limit) << v.name;
}

TEST_P(Gradients, AreTheSameInEveryForm) {
  expect_one_gradient<double>(v, Sequences::dense(1, 70), false, 1e-11);
  expect_one_gradient<double>(v, Sequences::dense(2, 19), true, 1e-11);
  expect_one_gradient<float>(v, Sequences::dense(1, 70), false, 1e-5);
  expect_one_gradient<float>(v, Sequences::dense(2, 19), true, 1e-5);
}

INSTANTIATE_TEST_SUITE_P(All, Gradients, testing::Range<std::size_t>(0, variants().size()),
                         [](const auto& p) { return variants()[p.param].name; });

TEST(GradientsOfSequences, PackedAndPaddedMatchFiniteDifferences) {
  const std::array<Index, 4> borders{0, 4, 5, 11};
  const std::array<Index, 3> padding{2, 0, 3};
  for (const auto& v : some_variants()) {
    const auto layer = random_layer<Layer<double>>(v.config);
    for (const Form form : {Form::parallel(), Form::chunkwise(3), Form::recurrent()}) {
      const auto packed = Sequences::packed(std::span<const Index>(borders));
      expect_finite_differences(layer, packed, form, true, v.name + " packed");
      expect_one_gradient<double>(v, packed, false, 1e-11);
      const auto padded = Sequences::left_padded(3, 4, std::span<const Index>(padding));
      expect_finite_differences(layer, padded, form, true, v.name + " padded");
    }
  }
}

TEST(GradientsOfSequences, ThreadsLeaveTheBitsAlone) {
  Cpu one(1), two(2);
  for (auto v : some_variants()) {
    v.config.d_model = 64;
    const auto layer = random_layer<Layer<float>>(v.config);
    const LossOf<Layer<float>, float> f(layer, Sequences::dense(3, 100), 64, true);
    for (const Form form : {Form::parallel(), Form::chunkwise(32)}) {
      const auto a = f.gradient(one, form), b = f.gradient(two, form);
      EXPECT_TRUE(same_bits(a.dx, b.dx)) << v.name;
      EXPECT_TRUE(same_bits(a.dw.flat(), b.dw.flat())) << v.name;
      EXPECT_TRUE(same_state(a.dstate, b.dstate)) << v.name;
    }
  }
}

// Weight gradients accumulate, and so does dx where beta says so.
TEST(GradientsOfSequences, WeightGradientsAccumulate) {
  const auto v = some_variants().front();
  const auto layer = random_layer<Layer<double>>(v.config);
  const Index rows = 6, width = v.config.d_model;
  const LossOf<Layer<double>, double> f(layer, Sequences::dense(1, rows), width, false);
  Cpu ctx;
  const auto once = f.gradient(ctx, Form::parallel());
  typename Layer<double>::Saved saved;
  Buffer<double> y(f.x.size()), dx(f.x.size());
  dx.fill(2.0);
  layer.forward(ctx, ParamRef<const double>(f.weights.ref()), f.pass(Form::parallel()),
                ConstView<double, 3>(f.x.data(), f.dims()), nullptr,
                View<double, 3>(y.data(), f.dims()), &saved);
  auto twice = once.dw;
  layer.backward_rows(ctx, ParamRef<const double>(f.weights.ref()), f.pass(Form::parallel()),
                      Window<const double>(f.x.data(), rows, width), saved,
                      Window<const double>(f.c.data(), rows, width), twice.ref(),
                      Window<double>(dx.data(), rows, width), 0.5);
  for (const auto& entry : layer.layout().entries())
    for (Index i = 0; i < entry.place.size(); ++i)
      EXPECT_NEAR(twice[entry.place].data[i], 2.0 * once.dw[entry.place].data[i], 1e-12)
          << entry.name;
  for (Index i = 0; i < dx.size(); ++i) EXPECT_NEAR(dx[i], 1.0 + once.dx[i], 1e-12);
}

}  // namespace
}  // namespace retnet::test
