// Layers compute in any scalar that behaves like a number. Here it is a dual number: a value and
// its slope along one direction, so that one forward pass gives the exact directional derivative.
#include <cmath>
#include <cstdio>
#include <numbers>

#include "retnet/layers/multi_scale_retention.hpp"

struct Dual {
  double value = 0, slope = 0;

  Dual() = default;
  explicit Dual(double v, double s = 0) : value(v), slope(s) {}
  friend Dual operator+(Dual a, Dual b) { return Dual(a.value + b.value, a.slope + b.slope); }
  friend Dual operator-(Dual a, Dual b) { return Dual(a.value - b.value, a.slope - b.slope); }
  friend Dual operator*(Dual a, Dual b) {
    return Dual(a.value * b.value, a.slope * b.value + a.value * b.slope);
  }
  friend Dual operator/(Dual a, Dual b) {
    const double q = a.value / b.value;
    return Dual(q, (a.slope - q * b.slope) / b.value);
  }
  friend bool operator<(Dual a, Dual b) { return a.value < b.value; }
  friend bool operator==(Dual a, Dual b) = default;
  // Found by argument-dependent lookup wherever the library writes exp(x), log(x), ...
  friend Dual exp(Dual x) { return Dual(std::exp(x.value), std::exp(x.value) * x.slope); }
  friend Dual log(Dual x) { return Dual(std::log(x.value), x.slope / x.value); }
  friend Dual sqrt(Dual x) {
    const double root = std::sqrt(x.value);
    return Dual(root, x.slope / (2 * root));
  }
  friend Dual erf(Dual x) {
    const double density = 2 * std::numbers::inv_sqrtpi * std::exp(-x.value * x.value);
    return Dual(std::erf(x.value), density * x.slope);
  }
};
static_assert(retnet::ComputeScalar<Dual>);

template <class Scalar>
using Rows = Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

int main() {
  constexpr retnet::Index kTokens = 20, kChannels = 16;
  const retnet::RetentionConfig config{.d_model = kChannels, .heads = 2};
  const retnet::MultiScaleRetention<double> layer(config, retnet::Seed{1});
  // The same weights, still doubles; only what is computed is dual.
  const retnet::MultiScaleRetention<Dual, double> dual(config, layer.weight_buffer());

  Rows<double> x(kTokens, kChannels), direction(kTokens, kChannels);
  Rows<Dual> moving(kTokens, kChannels);  // x, moving along the direction
  for (retnet::Index i = 0; i < x.size(); ++i) {
    const auto n = static_cast<std::uint64_t>(i);
    x.data()[i] = retnet::normal(retnet::Seed{2}, 0, n);
    direction.data()[i] = retnet::normal(retnet::Seed{3}, 0, n);
    moving.data()[i] = Dual(x.data()[i], direction.data()[i]);
  }

  const Rows<Dual> parallel = dual.forward_parallel(moving);
  auto state = dual.initial_state();  // a state of dual numbers: it remembers slopes as well
  const Rows<Dual> recurrent = dual.forward_recurrent(moving, state);

  const double step = 1e-5;
  const Rows<double> ahead = layer.forward_parallel(Rows<double>(x + step * direction));
  const Rows<double> behind = layer.forward_parallel(Rows<double>(x - step * direction));
  const Rows<double> plain = layer.forward_parallel(x);

  double size = 0, values = 0, slopes = 0, forms = 0;
  for (retnet::Index i = 0; i < x.size(); ++i) {
    const Dual y = parallel.data()[i];
    const double difference = (ahead.data()[i] - behind.data()[i]) / (2 * step);
    size = std::fmax(size, std::fabs(y.slope));
    values += std::fabs(y.value - plain.data()[i]);  // sums, so that NaN stays NaN
    slopes += std::fabs(y.slope - difference);
    forms += std::fabs(y.slope - recurrent.data()[i].slope);
  }
  std::printf("largest slope of an output                 %.3f\n", size);
  std::printf("dual against double, values                %.1e\n", values);
  std::printf("dual against finite differences, slopes    %.1e\n", slopes);
  std::printf("recurrent against parallel form, slopes    %.1e\n", forms);
  return size > 0.1 && values < 1e-12 && slopes < 1e-6 && forms < 1e-11 ? 0 : 1;
}
