// Many rows cut into tiles for all threads. How they are cut depends on the work alone, so results do not depend on
// the number of threads.
#pragma once

#include <memory>
#include <vector>

#include "jobs.hpp"

namespace longspan {

// Attention over segments that come one by one, or several at once, in the order of the text.
class Prefill {
public:
    Prefill(const Level* level, int threads, const Prompt& work);
    Prefill(const Prefill&) = delete;

    void add(const Segment& segment) { waiting_.push_back(segment); }
    // Read what was added; it may go afterwards.
    void read() { pass(false); }
    // Read what was added, and divide the sums.
    void finish() { pass(true); }

private:
    void pass(bool last);

    const Level* level_;
    int threads_;
    Prompt work_;
    int64_t tile_;  // rows
    bool first_ = true;
    std::unique_ptr<float[]> running_;  // tops and totals
    std::vector<Segment> waiting_;
};

// What some rows give to each page of a segment; and then, of all segments, the shares [lanes, blocks, N].
void estimate(const Level* level, int threads, const Probe& probe, const Segment& segment);
void shares(const Level* level, int threads, const Probe& probe, float* out);

}  // namespace longspan
