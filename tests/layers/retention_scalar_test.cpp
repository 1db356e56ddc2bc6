// SPDX-License-Identifier: MIT
// Scalars that have no vector kernels run the plain loops under Cpu, and bfloat16 weights are read
// as the floats they stand for.

#include <gtest/gtest.h>

#include "layers/gradients.hpp"
#include "retnet/layers/multi_scale_retention.hpp"

namespace retnet::test {

/// A number and its derivative: forward differentiation by operator overloading.
struct Dual {
  double v = 0.0, d = 0.0;

  constexpr Dual() = default;
  constexpr Dual(double value, double derivative = 0.0)  // NOLINT(google-explicit-constructor)
      : v(value), d(derivative) {}
  explicit operator double() const { return v; }

  friend Dual operator+(Dual a, Dual b) { return {a.v + b.v, a.d + b.d}; }
  friend Dual operator-(Dual a, Dual b) { return {a.v - b.v, a.d - b.d}; }
  friend Dual operator*(Dual a, Dual b) { return {a.v * b.v, a.d * b.v + a.v * b.d}; }
  friend Dual operator/(Dual a, Dual b) { return {a.v / b.v, (a.d - a.v / b.v * b.d) / b.v}; }
  Dual& operator+=(Dual b) { return *this = *this + b; }
  friend bool operator<(Dual a, Dual b) { return a.v < b.v; }
  friend bool operator==(Dual a, Dual b) { return a.v == b.v; }
  friend Dual exp(Dual a) { return {std::exp(a.v), std::exp(a.v) * a.d}; }
  friend Dual log(Dual a) { return {std::log(a.v), a.d / a.v}; }
  friend Dual sqrt(Dual a) { return {std::sqrt(a.v), a.d / (2.0 * std::sqrt(a.v))}; }
  friend Dual erf(Dual a) {
    return {std::erf(a.v), 2.0 * std::numbers::inv_sqrtpi * std::exp(-a.v * a.v) * a.d};
  }
};

static_assert(ComputeScalar<Dual> && ComputeScalar<long double>);
static_assert(!Vectorized<Dual> && !Vectorized<long double>);

namespace {

template <class S>
Buffer<S> cast(const Buffer<double>& x) {
  Buffer<S> out(x.size());
  for (Index i = 0; i < x.size(); ++i) out[i] = S(x[i]);
  return out;
}

template <class S>
Buffer<double> values(const Buffer<S>& x) {
  Buffer<double> out(x.size());
  for (Index i = 0; i < x.size(); ++i) out[i] = static_cast<double>(x[i]);
  return out;
}

template <class S>
void expect_double_results() {
  for (const auto& v : some_variants()) {
    const auto sequences = Sequences::dense(2, 9);
    const auto x = random_normal<double>(18 * v.config.d_model, 1);
    const auto layer = random_layer<MultiScaleRetention<double>>(v.config);
    const MultiScaleRetention<S> other(v.config, layer.weight_buffer().template cast<S>());
    Cpu ctx;
    auto state = layer.initial_state(2);
    auto other_state = other.initial_state(2);
    std::vector<const char*> trace;
    const auto y = run(ctx, layer, Form::parallel(), sequences, x, &state);
    ctx.trace = &trace;
    for (const Form form : {Form::parallel(), Form::recurrent(), Form::chunkwise(4)}) {
      other_state.reset();
      const auto z = run(ctx, other, form, sequences, cast<S>(x), &other_state);
      EXPECT_LE(relative_error(values(z), y), 1e-12) << v.name << form.name();
      RelativeError error;
      for (std::size_t i = 0; i < state.flat().size(); ++i)
        error.add(static_cast<double>(other_state.flat()[i]), state.flat()[i]);
      EXPECT_LE(error.value(), 1e-12) << v.name << form.name();
    }
    ASSERT_FALSE(trace.empty());
    for (const char* path : trace) EXPECT_TRUE(std::string(path).ends_with(": reference")) << path;
  }
}

TEST(CustomScalars, LongDoubleFallsToTheLoops) { expect_double_results<long double>(); }
TEST(CustomScalars, DualFallsToTheLoops) { expect_double_results<Dual>(); }

// With the derivative of x along u in the dual part, the layer computes dy/du; backward must agree
// to rounding, which no finite difference could tell.
TEST(CustomScalars, DualDifferentiatesLikeBackward) {
  for (const auto& v : some_variants()) {
    const auto layer = random_layer<MultiScaleRetention<double>>(v.config);
    const LossOf<MultiScaleRetention<double>, double> f(layer, Sequences::dense(2, 7),
                                                        v.config.d_model, false);
    Cpu ctx;
    const auto g = f.gradient(ctx, Form::chunkwise(3));
    const auto u = random_normal<double>(f.x.size(), 21);
    double expected = 0.0, given = 0.0;
    Buffer<Dual> x(f.x.size());
    for (Index i = 0; i < x.size(); ++i) {
      x[i] = {f.x[i], u[i]};
      expected += g.dx[i] * u[i];
    }
    const MultiScaleRetention<Dual> dual(v.config, f.weights.cast<Dual>());
    const auto y = run(ctx, dual, Form::recurrent(), f.sequences, x);
    for (Index i = 0; i < y.size(); ++i) given += f.c[i] * y[i].d;
    EXPECT_NEAR(given / expected, 1.0, 1e-11) << v.name;
  }
}

// bfloat16 holds 8 bits: weights are off by 2^-9 at most, and outputs by what the layer makes of
// it.
TEST(Bfloat16Weights, FormsAreEqualAndNearTheFloatLayer) {
  constexpr double kBound = 3e-2;
  for (const auto& v : some_variants()) {
    const auto layer = random_layer<MultiScaleRetention<float>>(v.config);
    const auto narrow_weights = layer.weight_buffer().cast<bfloat16>();
    const MultiScaleRetention<float, bfloat16> narrow(v.config, narrow_weights);
    const MultiScaleRetention<float> widened(v.config, narrow_weights.cast<float>());
    const auto sequences = Sequences::dense(2, 65);
    const auto x = random_normal<float>(130 * v.config.d_model, 1);
    Cpu ctx;
    Reference plain;
    const auto y = run(ctx, narrow, Form::parallel(), sequences, x);
    EXPECT_LE(relative_error(y, run(ctx, layer, Form::parallel(), sequences, x)), kBound) << v.name;
    for (const Form form : forms(65)) {
      EXPECT_LE(relative_error(run(ctx, narrow, form, sequences, x), y), 1e-5)
          << v.name << form.name();
      EXPECT_LE(relative_error(run(plain, narrow, form, sequences, x), y), 1e-5) << v.name;
      EXPECT_TRUE(
          same_bits(run(ctx, widened, form, sequences, x), run(ctx, narrow, form, sequences, x)))
          << v.name << form.name();
    }
    auto state = narrow.initial_state(2);
    Buffer<float> now(2 * v.config.d_model), steps(y.size());
    for (Index t = 0; t < 65; ++t) {
      for (Index b = 0; b < 2; ++b)
        std::copy_n(x.data() + (b * 65 + t) * v.config.d_model, v.config.d_model,
                    now.data() + b * v.config.d_model);
      const auto part = run(ctx, narrow, Form::recurrent(), Sequences::dense(2, 1), now, &state);
      for (Index b = 0; b < 2; ++b)
        std::copy_n(part.data() + b * v.config.d_model, v.config.d_model,
                    steps.data() + (b * 65 + t) * v.config.d_model);
    }
    EXPECT_LE(relative_error(steps, y), 1e-5) << v.name;
  }
}

}  // namespace
}  // namespace retnet::test
