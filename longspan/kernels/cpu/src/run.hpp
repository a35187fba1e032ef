// Work cut into tasks for all threads. How it is cut depends on the work alone, so results do not depend on the
// number of threads.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "jobs.hpp"

namespace longspan {

// Those that this processor runs, the best last.
std::vector<const Level*> available();

// Attention over segments that come one by one, or several at once.
class Decode {
public:
    Decode(const Level* level, int threads, const Attention& work) : level_(level), threads_(threads), work_(work) {}
    Decode(const Decode&) = delete;

    void add(const Segment& segment) { waiting_.push_back(segment); }
    // Read what was added; it may go afterwards.
    void read();
    // Join all partial results to out [R, H, D]. sinks [H] or null.
    void finish(const float* sinks, float* out);

private:
    const Level* level_;
    int threads_;
    Attention work_;
    std::vector<Segment> waiting_;
    std::vector<std::unique_ptr<float[]>> parts_;  // of each reading: [lanes, spans, part]
    std::vector<int64_t> spans_;
};

void score(const Level* level, int threads, const Sketch& work);

}  // namespace longspan
