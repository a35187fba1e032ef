// Work cut into tasks for all threads. How it is cut depends on the work alone, so results do not depend on the
// number of threads.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "jobs.hpp"

namespace longspan {

// Those that this processor runs, the best last.
std::vector<const Level*> available();

// Whether this processor multiplies bfloat16 numbers in pairs faster than float32 ones.
bool pairs();

// Attention of few rows of one or several sequences, over segments that come one by one, or several at once.
class Decode {
public:
    Decode(const Level* level, int threads) : level_(level), threads_(threads) {}
    Decode(const Decode&) = delete;

    // Another sequence. sinks [H] or null; out [R, H, D] is written by `finish`.
    void work(const Attention& work, const float* sinks, float* out) { works_.push_back({work, sinks, out, {}}); }
    // Pages of the last sequence.
    void add(const Segment& segment) { waiting_.push_back({works_.size() - 1, segment}); }
    // Read what was added; it may go afterwards.
    void read();
    // Read what is left, and join all partial results.
    void finish();

private:
    struct Sequence {
        Attention work;
        const float* sinks;
        float* out;
        std::vector<std::pair<const float*, int64_t>> parts;  // of each reading: [lanes, spans, part], and spans
    };
    struct Waiting {
        size_t sequence;
        Segment segment;
    };
    const Level* level_;
    int threads_;
    std::vector<Sequence> works_;
    std::vector<Waiting> waiting_;
    std::vector<std::unique_ptr<float[]>> memory_;
};

void score(const Level* level, int threads, const Sketch& work);

void attend(const Level* level, int threads, const Kept& work);

void attend(const Level* level, int threads, Slotted work);

// False: there is a number that cannot be stored, and what was written means nothing.
bool seal(const Level* level, int threads, const Sealing& work);

}  // namespace longspan
