// SPDX-License-Identifier: MIT
// A const view does not turn back into a mutable one.
#include "retnet/core/view.hpp"

#ifdef RETNET_EXPECT_FAIL
using Source = retnet::ConstView<float, 3>;
#else
using Source = retnet::View<float, 3>;
#endif

void write(retnet::View<float, 3> x);

void call(Source x) { write(x); }
