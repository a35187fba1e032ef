#include "prompt.hpp"

#include <algorithm>

#include "pool.hpp"

namespace longspan {

namespace {
constexpr int64_t NUMBERS = 49152;  // of the queries of a tile, which stay in the second cache with their sums
constexpr int64_t TILES = 12;       // that there should be at least, so that threads end together
constexpr int64_t LEAST = 192;      // query rows for which laying out a page costs little beside using it
constexpr int64_t PROBED = 8;       // pages of a task, for which narrowing its queries costs little
}  // namespace

Prefill::Prefill(const Level* level, int threads, const Prompt& work) : level_(level), threads_(threads), work_(work) {
    const int64_t size = work.rows * work.heads;
    running_.reset(new float[static_cast<size_t>(2 * size)]);
    work_.tops = running_.get();
    work_.totals = work_.tops + size;
    const int64_t even = std::max(size / TILES, LEAST);
    tile_ = std::max<int64_t>(std::min(even, NUMBERS / work.dim) / work.group(), 1);
    if (work.chosen) tile_ = std::min(tile_, work.chosen_rows);
}

void Prefill::pass(bool last) {
    if (waiting_.empty() && !last) return;
    std::vector<Tile> tiles;
    const int64_t block = work_.chosen ? work_.chosen_rows : work_.rows, count = static_cast<int64_t>(waiting_.size());
    for (int64_t from = 0; from < work_.rows;) {
        const int64_t end = std::min((from / block + 1) * block, work_.rows), to = std::min(from + tile_, end);
        for (int64_t lane = 0; lane < work_.lanes; lane++)
            tiles.push_back({lane, from, to, waiting_.data(), count, first_, last});
        from = to;
    }
    std::reverse(tiles.begin(), tiles.end());  // the last rows see most, so they begin
    parallel(threads_, static_cast<int64_t>(tiles.size()), level_->prefill_scratch(work_, tile_),
             [&](int64_t i, float* scratch) { level_->prefill(work_, tiles[static_cast<size_t>(i)], scratch); });
    first_ = false;
    waiting_.clear();
}

void estimate(const Level* level, int threads, const Probe& probe, const Segment& segment) {
    const int64_t lanes = probe.prompt.lanes, spans = (segment.pages + PROBED - 1) / PROBED;
    parallel(threads, lanes * spans, level->estimate_scratch(probe), [&](int64_t i, float* scratch) {
        const int64_t from = i % spans * PROBED, to = std::min(from + PROBED, segment.pages);
        level->estimate(probe, segment, i / spans, from, to, scratch);
    });
}

void shares(const Level* level, int threads, const Probe& probe, float* out) {
    parallel(threads, probe.prompt.lanes * probe.blocks(), 0, [&](int64_t i, float*) {
        level->shares(probe, i / probe.blocks(), i % probe.blocks(), out + i * probe.prompt.pages);
    });
}

}  // namespace longspan
