// SPDX-License-Identifier: MIT
// Graph: what a stream was asked to do, to be done again at the price of one launch.
#pragma once

#include <utility>

#include "retnet/cuda/context.cuh"

namespace retnet::cuda {

class Graph {
 public:
  Graph() = default;
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  ~Graph() { drop(); }

  explicit operator bool() const { return graph_ != nullptr; }
  void drop() {
    if (graph_ != nullptr) cudaGraphExecDestroy(graph_);
    graph_ = nullptr;
  }
  /// f must have run before: nothing may be allocated while it is captured. If f throws, the stream is
  /// as it was before, and the graph is empty.
  template <class F>
  void capture(CudaContext& ctx, F&& f) {
    drop();
    Recording recording(ctx.stream());
    std::forward<F>(f)();
    recording.end();
    RETNET_CUDA(cudaGraphInstantiate(&graph_, recording.graph, 0));
  }
  void launch(CudaContext& ctx) const { RETNET_CUDA(cudaGraphLaunch(graph_, ctx.stream())); }

 private:
  // A stream that records, until end() or, when something throws, until it goes out of scope.
  struct Recording {
    explicit Recording(cudaStream_t s) : stream(s) {
      RETNET_CUDA(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal));
    }
    ~Recording() {
      if (stream != nullptr && cudaStreamEndCapture(stream, &graph) != cudaSuccess)
        cudaGetLastError();  // the capture was broken by what threw, which is told already
      if (graph != nullptr) cudaGraphDestroy(graph);
    }
    void end() { RETNET_CUDA(cudaStreamEndCapture(std::exchange(stream, nullptr), &graph)); }

    cudaStream_t stream;
    cudaGraph_t graph = nullptr;
  };

  cudaGraphExec_t graph_ = nullptr;
};

}  // namespace retnet::cuda
