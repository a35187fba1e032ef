#include "run.hpp"

#include <algorithm>
#include <cmath>

#include "pool.hpp"

namespace longspan {

namespace {
constexpr int64_t SPAN = 8;     // pages of a lane read by one thread at a time
constexpr int64_t SCORED = 64;  // summaries
}  // namespace

std::vector<const Level*> available() {
    std::vector<const Level*> found;
#if defined(__x86_64__)
    __builtin_cpu_init();
#endif
    for (int i = 0; i < level_count; i++)
        if (levels[i]->runs()) found.push_back(levels[i]);
    return found;
}

void Decode::read() {
    struct Span {
        const Segment* segment;
        int64_t from, to;
    };
    std::vector<Span> spans;
    for (const Segment& s : waiting_)
        for (int64_t n = 0; n < s.pages; n += SPAN) spans.push_back({&s, n, std::min(n + SPAN, s.pages)});
    if (spans.empty()) return;
    const int64_t many = static_cast<int64_t>(spans.size()), part = work_.part();
    std::unique_ptr<float[]> parts(new float[static_cast<size_t>(work_.lanes * many * part)]);
    float* out = parts.get();
    parallel(threads_, work_.lanes * many, level_->span_scratch(work_), [&](int64_t i, float* scratch) {
        const Span& s = spans[static_cast<size_t>(i % many)];
        level_->span(work_, *s.segment, i / many, s.from, s.to, scratch, out + i * part);
    });
    parts_.push_back(std::move(parts));
    spans_.push_back(many);
    waiting_.clear();
}

void Decode::finish(const float* sinks, float* out) {
    read();
    const int64_t m = work_.many(), d = work_.dim, g = work_.group(), part = work_.part();
    for (int64_t lane = 0; lane < work_.lanes; lane++)
        for (int64_t row = 0; row < m; row++) {
            const int64_t head = lane * g + row % g;
            float top = sinks ? sinks[head] : -1e30f, total = sinks ? 1.0f : 0.0f;
            auto each = [&](auto&& use) {
                for (size_t i = 0; i < parts_.size(); i++)
                    for (int64_t s = 0; s < spans_[i]; s++) use(parts_[i].get() + (lane * spans_[i] + s) * part);
            };
            each([&](const float* p) { top = std::max(top, p[m * d + row]); });
            float* to = out + ((row / g) * work_.heads + head) * d;
            if (sinks) total = std::exp(sinks[head] - top);
            std::fill(to, to + d, 0.0f);
            each([&](const float* p) {
                const float weight = std::exp(p[m * d + row] - top);
                total += weight * p[m * (d + 1) + row];
                for (int64_t c = 0; c < d; c++) to[c] += weight * p[row * d + c];
            });
            for (int64_t c = 0; c < d; c++) to[c] /= total;
        }
    parts_.clear();
    spans_.clear();
}

void score(const Level* level, int threads, const Sketch& work) {
    const int64_t pages = work.lanes * work.pages, chunks = (pages + SCORED - 1) / SCORED;
    parallel(threads, chunks, level->sketch_scratch(work), [&](int64_t i, float* scratch) {
        level->sketch(work, i * SCORED, std::min((i + 1) * SCORED, pages), scratch);
    });
}

}  // namespace longspan
