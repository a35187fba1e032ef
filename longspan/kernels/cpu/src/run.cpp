#include "run.hpp"

#include <algorithm>
#include <atomic>

#include "pool.hpp"

namespace longspan {

namespace {
constexpr int64_t SPAN = 8, LONGEST = 64;  // pages read by one thread at a time, least and most
constexpr int64_t SPANS = 64;              // of a text that is long enough
constexpr int64_t FEW = 4;                 // spans, below which each lane is a task of its own
constexpr int64_t JOINED = 1 << 16;        // floats that one thread joins before others have woken up
constexpr int64_t SCORED = 64;             // summaries
constexpr int64_t LAID = 256;              // slots laid out at a time
constexpr int64_t HELD = 1 << 17;          // scores of a task, which stay in the second cache
constexpr int64_t OPENED = 4;              // pages that eviction left
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

bool pairs() {
    static const bool found = available().back()->pairs();
    return found;
}

void Decode::read() {
    struct Task {
        const Waiting* of;
        Stretch stretch;
        float* parts;
    };
    std::vector<Task> tasks;
    size_t scratch = 0;
    auto size = [](int64_t pages) { return std::clamp(pages / SPANS, SPAN, LONGEST); };
    for (size_t i = 0; i < waiting_.size();) {
        Sequence& sequence = works_[waiting_[i].sequence];
        const Attention& work = sequence.work;
        size_t end = i;
        int64_t spans = 0, done = 0;
        for (; end < waiting_.size() && waiting_[end].sequence == waiting_[i].sequence; end++) {
            const int64_t pages = waiting_[end].segment.pages;
            spans += (pages + size(pages) - 1) / size(pages);
        }
        memory_.emplace_back(new float[static_cast<size_t>(work.lanes * spans * work.part())]);
        float* parts = memory_.back().get();
        sequence.parts.push_back({parts, spans});
        scratch = std::max(scratch, level_->span_scratch(work));
        const int64_t stride = spans * work.part(), lanes = spans < FEW ? 1 : work.lanes;
        for (; i < end; i++) {
            const int64_t pages = waiting_[i].segment.pages, step = size(pages);
            for (int64_t n = 0; n < pages; n += step, done++)
                for (int64_t lane = 0; lane < work.lanes; lane += lanes)
                    tasks.push_back({&waiting_[i],
                                     {lane, lane + lanes, n, std::min(n + step, pages), stride},
                                     parts + lane * stride + done * work.part()});
        }
    }
    parallel(threads_, static_cast<int64_t>(tasks.size()), scratch, [&](int64_t i, float* room) {
        const Task& t = tasks[static_cast<size_t>(i)];
        level_->span(works_[t.of->sequence].work, t.of->segment, t.stretch, room, t.parts);
    });
    waiting_.clear();
}

void Decode::finish() {
    read();
    std::vector<std::pair<const Sequence*, int64_t>> tasks;
    int64_t size = 0;
    for (const Sequence& s : works_)
        for (int64_t lane = 0; lane < s.work.lanes; lane++) {
            tasks.push_back({&s, lane});
            for (const auto& [parts, spans] : s.parts) size += spans * s.work.part();
        }
    parallel(size < JOINED ? 1 : threads_, static_cast<int64_t>(tasks.size()), 0, [&](int64_t i, float*) {
        const auto& [s, lane] = tasks[static_cast<size_t>(i)];
        std::vector<const float*> parts;
        for (const auto& [memory, spans] : s->parts)
            for (int64_t n = 0; n < spans; n++) parts.push_back(memory + (lane * spans + n) * s->work.part());
        level_->join(s->work, lane, parts.data(), static_cast<int64_t>(parts.size()), s->sinks, s->out);
    });
    works_.clear();
    memory_.clear();
}

void attend(const Level* level, int threads, const Kept& k) {
    struct Task {
        int64_t lane, from, to;
    };
    std::vector<Task> tasks;
    for (int64_t lane = 0; lane < k.lanes; lane++)
        for (int64_t n = 0; n < k.pages(lane); n += OPENED) tasks.push_back({lane, n, std::min(n + OPENED, k.pages(lane))});
    const size_t scratch = level->kept_scratch(k), part = static_cast<size_t>(k.many() * k.dim);
    const int64_t count = static_cast<int64_t>(tasks.size());
    std::unique_ptr<float[]> parts(new float[tasks.size() * part]);
    parallel(threads, count, scratch, [&](int64_t i, float* room) {
        const Task& t = tasks[static_cast<size_t>(i)];
        level->kept_score(k, t.lane, t.from, t.to, room);
    });
    parallel(threads, k.lanes, 0, [&](int64_t lane, float*) { level->kept_weigh(k, lane); });
    parallel(threads, count, scratch, [&](int64_t i, float* room) {
        const Task& t = tasks[static_cast<size_t>(i)];
        level->kept_sum(k, t.lane, t.from, t.to, room, parts.get() + static_cast<size_t>(i) * part);
    });
    std::fill(k.out, k.out + k.rows * k.heads * k.dim, 0.0f);
    for (size_t i = 0; i < tasks.size(); i++)
        for (int64_t m = 0; m < k.many(); m++) {
            const int64_t row = m / k.group(), head = tasks[i].lane * k.group() + m % k.group();
            const float* from = parts.get() + i * part + static_cast<size_t>(m * k.dim);
            float* to = k.out + (row * k.heads + head) * k.dim;
            for (int64_t d = 0; d < k.dim; d++) to[d] += from[d];
        }
}

void score(const Level* level, int threads, const Sketch& work) {
    const int64_t pages = work.lanes * work.pages, chunks = (pages + SCORED - 1) / SCORED;
    parallel(threads, chunks, level->sketch_scratch(work), [&](int64_t i, float* scratch) {
        level->sketch(work, i * SCORED, std::min((i + 1) * SCORED, pages), scratch);
    });
}

void attend(const Level* level, int threads, Slotted work) {
    const int64_t width = work.width(), lanes = work.lanes, chunks = width / level->chunk, group = work.group();
    const auto laid = static_cast<size_t>(lanes * width * work.dim);
    std::unique_ptr<float[]> keys(new float[laid]), values(new float[laid]);
    std::vector<float> first(static_cast<size_t>(lanes * chunks)), newest(first);
    for (int64_t i = 0; i < lanes * chunks; i++) {
        auto from = static_cast<size_t>(i);
        const float* late = work.late + i * level->chunk;
        first[from] = *std::min_element(late, late + level->chunk);
        const float* early = work.early ? work.early + i * level->chunk : nullptr;
        newest[from] = early ? *std::max_element(early, early + level->chunk) : 0;
    }
    work.laid_keys = keys.get();
    work.laid_values = values.get();
    work.first = first.data();
    work.newest = newest.data();
    const int64_t parts = (width + LAID - 1) / LAID;
    parallel(threads, lanes * parts, 0, [&](int64_t i, float*) {
        const int64_t from = i % parts * LAID;
        level->slotted_lay(work, i / parts, from, std::min(from + LAID, width));
    });
    work.block = std::clamp<int64_t>(HELD / width / group, 1, LONGEST);
    const int64_t blocks = (work.rows + work.block - 1) / work.block, tasks = lanes * blocks;
    const int64_t pages = work.page ? (work.slots + work.page - 1) / work.page : 0;
    // what the rows of each task gave, added up in their order, whichever thread comes first
    std::vector<float> mass(static_cast<size_t>(work.mass ? tasks * width : 0));
    std::vector<float> recent(static_cast<size_t>(work.recent ? tasks * group * width : 0));
    std::vector<int64_t> used(static_cast<size_t>(work.used ? tasks * pages : 0), -1);
    parallel(threads, tasks, level->slotted_scratch(work), [&](int64_t i, float* scratch) {
        const int64_t from = i % blocks * work.block;
        level->slotted(work, i / blocks, from, std::min(from + work.block, work.rows), scratch,
                       work.mass ? mass.data() + i * width : nullptr,
                       work.recent ? recent.data() + i * group * width : nullptr,
                       work.used ? used.data() + i * pages : nullptr);
    });
    for (int64_t i = 0; i < tasks; i++) {
        const int64_t lane = i / blocks;
        for (int64_t k = 0; work.mass && k < work.slots; k++)
            work.mass[lane * work.slots + k] += mass[static_cast<size_t>(i * width + k)];
        for (int64_t h = 0; work.recent && h < group; h++)
            for (int64_t k = 0; k < work.slots; k++)
                work.recent[(lane * group + h) * work.slots + k] += recent[static_cast<size_t>((i * group + h) * width + k)];
        for (int64_t n = 0; work.used && n < pages; n++)
            work.used[lane * pages + n] = std::max(work.used[lane * pages + n], used[static_cast<size_t>(i * pages + n)]);
    }
}

bool seal(const Level* level, int threads, const Sealing& work) {
    std::atomic<bool> fine{true};
    parallel(threads, work.pages, level->seal_scratch(work), [&](int64_t n, float* scratch) {
        if (!level->seal(work, n, scratch)) fine = false;
    });
    return fine;
}

}  // namespace longspan
