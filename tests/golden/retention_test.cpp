// SPDX-License-Identifier: MIT
// The retention operators against a float64 recurrence written in another language: outputs, final
// states, and the gradients of q, k, v, initial state and decay, with a fixed decay and a gated
// one.

#include <gtest/gtest.h>

#include "golden/golden.hpp"
#include "retnet/ops/retention_chunkwise.hpp"
#include "retnet/ops/retention_parallel.hpp"
#include "retnet/ops/retention_recurrent.hpp"

namespace retnet::golden {
namespace {

/// The operands of one case in the scalar S; `Stored` is what the inputs are rounded to first.
template <class S, class Stored = S>
struct Operands {
  Index rows, heads, dk, dv;
  double scale;
  Buffer<S> q, k, v, gate, initial;
  std::vector<double> log_gamma;
  Sequences sequences;

  explicit Operands(const Case& c)
      : heads(c.io().at("q").shape.at(2)),
        dk(c.io().at("q").shape.at(3)),
        dv(c.io().at("v").shape.at(3)),
        scale(c.info().at("scale").get<double>()),
        q(take(c, "q", scale)),
        k(take(c, "k")),
        v(take(c, "v")),
        sequences(sequences_of_case(c)) {
    rows = sequences.rows();
    if (c.info().at("format") == "op_gated") {
      gate = take(c, "g");
      log_gamma.assign(static_cast<std::size_t>(heads), 0.0);
    } else {
      for (const double gamma : c.io().at("gamma").values) log_gamma.push_back(std::log(gamma));
    }
    if (c.info().at("has_initial_state").get<bool>()) {
      initial = take(c, "initial_state");
    } else if (c.io().has("initial_state")) {
      throw std::runtime_error(c.name() + ": an initial state that case.json denies");
    }
  }

  RetentionInput<S> input() const {
    return {
        {q.data(), rows, heads * dk},
        {k.data(), rows, heads * dk},
        {v.data(), rows, heads * dv},
        heads,
        heads,
        {log_gamma, gate.empty() ? Window<const S>() : Window<const S>(gate.data(), rows, heads)},
        &sequences};
  }
  Index state_size() const { return sequences.count() * heads * dk * dv; }
  Buffer<S> state() const {
    Buffer<S> s(state_size());
    s.fill(S(0));
    if (!initial.empty()) s = initial;
    return s;
  }

  static Buffer<S> take(const Case& c, const std::string& key, double factor = 1.0) {
    const Array& array = c.io().at(key);
    Buffer<S> out(array.size());
    for (Index i = 0; i < out.size(); ++i)
      out[i] = S(factor * static_cast<double>(scalar_cast<S>(
                              scalar_cast<Stored>(array.values[static_cast<std::size_t>(i)]))));
    return out;
  }
  static Sequences sequences_of_case(const Case& c) {
    const auto& shape = c.io().at("q").shape;
    if (!c.info().at("packed").get<bool>()) return Sequences::dense(shape[0], shape[1]);
    std::vector<Index> borders;
    for (const double b : c.io().at("cu_seqlens").values) borders.push_back(static_cast<Index>(b));
    return Sequences::packed(std::span<const Index>(borders));
  }
};

std::vector<Form> forms(Index tokens) {
  std::vector<Form> out{Form::parallel(), Form::recurrent()};
  for (const Index chunk : {Index{1}, Index{3}, Index{16}, Index{64}, tokens})
    out.push_back(Form::chunkwise(chunk));
  return out;
}

template <class Context, class S>
void run(Context& ctx, Form form, const RetentionInput<S>& in, S* state, Window<S> o) {
  switch (form.kind) {
    case Form::Kind::parallel: return retention_parallel(ctx, in, state, o);
    case Form::Kind::recurrent: return retention_recurrent(ctx, in, state, o);
    case Form::Kind::chunkwise: return retention_chunkwise(ctx, in, form.chunk, state, o);
  }
}

template <class S, class Stored, class Context>
void expect_outputs(Context& ctx, const Case& c, double tolerance) {
  const Operands<S, Stored> x(c);
  const auto in = x.input();
  const double state_tolerance =
      std::max(tolerance, value_or(c.info().at("tolerance_rel"), "float64_final_state", 0.0));
  for (const Form form : forms(x.sequences.longest())) {
    auto state = x.state();
    Buffer<S> o(x.rows * x.heads * x.dv);
    run(ctx, form, in, state.data(), Window<S>(o.data(), x.rows, x.heads * x.dv));
    EXPECT_LE(error(o, c.io().at("o")), tolerance) << form.name() << " " << form.chunk;
    EXPECT_LE(error(state, c.io().at("final_state")), state_tolerance)
        << form.name() << " " << form.chunk;
    if (!x.initial.empty() || form.kind == Form::Kind::recurrent) continue;
    run<Context, S>(ctx, form, in, nullptr, Window<S>(o.data(), x.rows, x.heads * x.dv));
    EXPECT_LE(error(o, c.io().at("o")), tolerance) << "no state, " << form.name();
  }
}

template <class S, class Context>
void expect_gradients(Context& ctx, const Case& c, double tolerance) {
  if (!c.info().contains("gradients")) {
    EXPECT_FALSE(c.io().has("dq"));
    return;
  }
  const Operands<S> x(c);
  const auto in = x.input();
  const bool gated = !x.gate.empty();
  const auto d_o = Operands<S>::take(c, "do");
  const Window<const S> d_out(d_o.data(), x.rows, x.heads * x.dv);
  for (const Form form : forms(x.sequences.longest())) {
    if (form.kind == Form::Kind::recurrent) continue;  // has no backward of its own
    Buffer<S> dq(x.q.size()), dk(x.k.size()), dv(x.v.size()), dlog(x.rows * x.heads), dstate;
    if (!x.initial.empty()) dstate = Operands<S>::take(c, "d_final_state");
    const RetentionGradient<S> grad{{dq.data(), x.rows, x.heads * x.dk},
                                    {dk.data(), x.rows, x.heads * x.dk},
                                    {dv.data(), x.rows, x.heads * x.dv},
                                    dstate.empty() ? nullptr : dstate.data(),
                                    {dlog.data(), x.rows, x.heads}};
    const S* initial = x.initial.empty() ? nullptr : x.initial.data();
    if (form.kind == Form::Kind::parallel) {
      retention_parallel_backward(ctx, in, initial, d_out, grad);
    } else {
      retention_chunkwise_backward(ctx, in, form.chunk, initial, d_out, grad);
    }
    for (S& d : dq) d = S(d * S(x.scale));
    const auto expect = [&](const Buffer<S>& ours, const char* key, double limit) {
      EXPECT_LE(error(ours, c.io().at(key)), limit) << key << " " << form.name() << form.chunk;
    };
    expect(dq, "dq", tolerance);
    expect(dk, "dk", tolerance);
    expect(dv, "dv", tolerance);
    if (!dstate.empty()) expect(dstate, "d_initial_state", tolerance);
    if (gated) {
      expect(dlog, "dg", 10.0 * tolerance);
      continue;
    }
    test::RelativeError dgamma;
    for (Index h = 0; h < x.heads; ++h) {
      double sum = 0.0;
      for (Index r = 0; r < x.rows; ++r) sum += static_cast<double>(dlog[r * x.heads + h]);
      const double gamma = std::exp(x.log_gamma[static_cast<std::size_t>(h)]);
      const double golden = c.io().at("dgamma").values.at(static_cast<std::size_t>(h));
      dgamma.add(sum / gamma, golden);
    }
    EXPECT_LE(dgamma.value(), 10.0 * tolerance) << form.name() << form.chunk;
  }
}

class RetentionCase : public testing::TestWithParam<std::string> {
 protected:
  const Case c{GetParam()};
};

TEST_P(RetentionCase, OutputsInDouble) {
  Cpu ctx(2);
  Reference plain;
  expect_outputs<double, double>(ctx, c, c.tolerance("float64"));
  expect_outputs<double, double>(plain, c, c.tolerance("float64"));
}

TEST_P(RetentionCase, OutputsInFloat) {
  Cpu ctx(2);
  Reference plain;
  expect_outputs<float, float>(ctx, c, c.tolerance("float32"));
  expect_outputs<float, float>(plain, c, c.tolerance("float32"));
}

TEST_P(RetentionCase, OutputsOfInputsInBfloat16) {
  Cpu ctx;
  expect_outputs<float, bfloat16>(ctx, c, c.tolerance("bfloat16_inputs"));
}

TEST_P(RetentionCase, GradientsInDouble) {
  Cpu ctx(2);
  Reference plain;
  expect_gradients<double>(ctx, c, c.tolerance("float64"));
  expect_gradients<double>(plain, c, c.tolerance("float64"));
}

TEST_P(RetentionCase, GradientsInFloat) {
  Cpu ctx(2);
  Reference plain;
  expect_gradients<float>(ctx, c, c.tolerance("float32"));
  expect_gradients<float>(plain, c, c.tolerance("float32"));
}

INSTANTIATE_TEST_SUITE_P(Fixed, RetentionCase, testing::ValuesIn(names("", "op_retention")),
                         test_name<testing::TestParamInfo<std::string>>);
INSTANTIATE_TEST_SUITE_P(Gated, RetentionCase, testing::ValuesIn(names("", "op_gated")),
                         test_name<testing::TestParamInfo<std::string>>);

}  // namespace
}  // namespace retnet::golden
