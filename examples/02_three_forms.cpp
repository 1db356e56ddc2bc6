// The parallel, chunkwise and recurrent form are one function: in float and double, for every chunk
// size, and when the form changes in the middle of a sequence. Exit code 1 if they are not.
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "retnet/layers/multi_scale_retention.hpp"

using retnet::Form;
using retnet::Index;

constexpr Index kTokens = 300, kChannels = 64;

/// So many tokens in this form.
struct Part {
  Form form;
  Index tokens;
};

struct Route {
  std::string name;
  std::vector<Part> parts;
};

std::vector<Route> routes() {
  std::vector<Route> out{{"recurrent", {{Form::recurrent(), kTokens}}}};
  for (const Index chunk : {1, 7, 64, 299, 300, 1000})
    out.push_back({"chunkwise " + std::to_string(chunk), {{Form::chunkwise(chunk), kTokens}}});
  const Form p = Form::parallel(), c = Form::chunkwise(32), r = Form::recurrent();
  out.push_back({"parallel, then recurrent", {{p, 100}, {r, 200}}});
  out.push_back({"chunkwise, then recurrent", {{c, 150}, {r, 150}}});
  out.push_back({"recurrent, then chunkwise", {{r, 1}, {c, 299}}});
  out.push_back({"all three, twice", {{p, 50}, {c, 45}, {r, 55}, {c, 3}, {r, 47}, {p, 100}}});
  return out;
}

/// max |y - expected| / max |expected|; NaN stays NaN.
template <class Matrix>
double relative_error(const Matrix& y, const Matrix& expected) {
  double difference = 0.0, size = 0.0;
  for (Index i = 0; i < y.size(); ++i) {
    const auto d = static_cast<double>(std::abs(y.data()[i] - expected.data()[i]));
    if (d > difference || std::isnan(d)) difference = d;
    size = std::fmax(size, static_cast<double>(std::abs(expected.data()[i])));
  }
  return difference / size;
}

/// Of each route, against the parallel form of the whole sequence.
template <class Scalar>
std::vector<double> errors() {
  using Matrix = Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const retnet::MultiScaleRetention<Scalar> layer({.d_model = kChannels, .heads = 4},
                                                  retnet::Seed{1});
  const Matrix x = Matrix::Random(kTokens, kChannels);  // one sequence [T,C]
  const Matrix expected = layer.forward_parallel(x);

  std::vector<double> out;
  for (const Route& route : routes()) {
    auto state = layer.initial_state();
    Matrix y(kTokens, kChannels);
    Index first = 0;
    for (const auto& [form, tokens] : route.parts) {  // the state carries from part to part
      // Rows of a row-major matrix are contiguous: the layer reads and writes them in place.
      const Eigen::Map<const Matrix> part(x.row(first).data(), tokens, kChannels);
      Eigen::Map<Matrix> result(y.row(first).data(), tokens, kChannels);
      layer.forward(retnet::default_context(), form, part, &state, result);
      first += tokens;
    }
    out.push_back(relative_error(y, expected));
  }
  return out;
}

int main() {
  const auto in_double = errors<double>();
  const auto in_float = errors<float>();
  std::printf("largest relative error against the parallel form, %d tokens\n\n",
              static_cast<int>(kTokens));
  std::printf("%-28s %8s  %8s\n", "route", "double", "float");
  bool good = true;
  for (std::size_t i = 0; i < in_double.size(); ++i) {
    const bool holds = in_double[i] < 1e-12 && in_float[i] < 1e-5;
    good = good && holds;
    std::printf("%-28s %8.1e  %8.1e%s\n", routes()[i].name.c_str(), in_double[i], in_float[i],
                holds ? "" : "   too large");
  }
  return good ? 0 : 1;
}
