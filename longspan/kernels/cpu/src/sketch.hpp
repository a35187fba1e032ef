// The best slot of a page, scored on its 2-bit copy: codes are read once for all rows.
#pragma once

namespace {

constexpr int TOGETHER = 8;  // rows that share the codes in registers

struct SketchRoom {
    float *low, *step, *scaled, *bias;
    int64_t size;

    SketchRoom(const Sketch& s, float* memory) {
        int64_t used = 0;
        auto take = [&](int64_t n) {
            float* p = memory ? memory + used : nullptr;
            used += padded(n + PAD);
            return p;
        };
        low = take(s.dim);
        step = take(s.dim);
        scaled = take(s.rows * s.dim);
        bias = take(s.rows);
        size = used;
    }
};

inline size_t sketch_scratch(const Sketch& s) { return static_cast<size_t>(SketchRoom(s, nullptr).size); }

template <int M, int N>
void best_block(const Sketch& s, const uint8_t* codes, const float* scaled, int64_t at, V::F* best) {
    const int64_t quarter = s.dim / 4;
    V::F sum[M][N];
    for (int j = 0; j < M; j++)
        for (int i = 0; i < N; i++) sum[j][i] = V::set(0.0f);
    for (int64_t g = 0; g < quarter; g++) {
        V::F code[N][4];
        for (int i = 0; i < N; i++) V::pairs(codes + g * s.slots + at + i * V::W, code[i]);
        for (int c = 0; c < 4; c++)
            for (int j = 0; j < M; j++) {
                V::F q = V::set(scaled[j * s.dim + c * quarter + g]);
                for (int i = 0; i < N; i++) sum[j][i] = V::fma(q, code[i][c], sum[j][i]);
            }
    }
    for (int j = 0; j < M; j++)
        for (int i = 0; i < N; i++) best[j] = V::max(best[j], sum[j][i]);
}

template <int M>
void best_of(const Sketch& s, const uint8_t* codes, const float* scaled, V::F* best) {
    constexpr int N = M <= 3 ? V::BLOCK : V::BLOCK / 2;
    for (int j = 0; j < M; j++) best[j] = V::set(-__builtin_inff());
    int64_t at = 0;
    for (; at + N * V::W <= s.slots; at += N * V::W) best_block<M, N>(s, codes, scaled, at, best);
    if constexpr (N > 1)
        for (; at < s.slots; at += V::W) best_block<M, 1>(s, codes, scaled, at, best);
}

// Pages from…to of all lanes, counted lane by lane.
void sketch(const Sketch& s, int64_t from, int64_t to, float* scratch) {
    const SketchRoom r(s, scratch);
    const int64_t bytes = s.dim / 4 * s.slots, whole = s.dim / V::W * V::W;
    for (int64_t i = from; i < to; i++) {
        const int64_t lane = i / s.pages, n = i % s.pages;
        const float* queries = s.queries + lane * s.rows * s.dim;
        const char* codes = s.codes + lane * s.codes_lane + n * s.codes_page;
        const char* low = s.low + lane * s.low_lane + n * s.low_page;
        const char* step = s.step + lane * s.step_lane + n * s.step_page;
        if (i + 2 < to) {  // pages of a lane lie far apart, where the processor does not look ahead by itself
            const int64_t l = (i + 2) / s.pages, m = (i + 2) % s.pages;
            auto fetch = [](const char* p, int64_t size) {
                for (int64_t line = 0; line < size; line += 64) __builtin_prefetch(p + line);
            };
            fetch(s.codes + l * s.codes_lane + m * s.codes_page, bytes);
            fetch(s.low + l * s.low_lane + m * s.low_page, 2 * s.dim);
            fetch(s.step + l * s.step_lane + m * s.step_page, 2 * s.dim);
        }
        widen(reinterpret_cast<const uint16_t*>(low), whole, r.low);
        widen(reinterpret_cast<const uint16_t*>(step), whole, r.step);
        for (int64_t m = 0; m < s.rows; m++) {
            const float* q = queries + m * s.dim;
            V::F sum = V::set(0.0f);
            for (int64_t d = 0; d < whole; d += V::W) {
                V::F x = V::load(q + d);
                sum = V::fma(x, V::load(r.low + d), sum);
                V::store(r.scaled + m * s.dim + d, V::mul(x, V::load(r.step + d)));
            }
            r.bias[m] = V::sum(sum);
        }
        const int64_t blocks = (s.rows + TOGETHER - 1) / TOGETHER;
        for (int64_t b = 0, m = 0; b < blocks; b++) {
            const int64_t size = (s.rows - m + blocks - b - 1) / (blocks - b);
            const auto* packed = reinterpret_cast<const uint8_t*>(codes);
            const float* scaled = r.scaled + m * s.dim;
            V::F best[TOGETHER];
            switch (size) {
                case 1: best_of<1>(s, packed, scaled, best); break;
                case 2: best_of<2>(s, packed, scaled, best); break;
                case 3: best_of<3>(s, packed, scaled, best); break;
                case 4: best_of<4>(s, packed, scaled, best); break;
                case 5: best_of<5>(s, packed, scaled, best); break;
                case 6: best_of<6>(s, packed, scaled, best); break;
                case 7: best_of<7>(s, packed, scaled, best); break;
                default: best_of<8>(s, packed, scaled, best); break;
            }
            for (int64_t j = 0; j < size; j++, m++) {
                const float score = r.bias[m] + V::most(best[j]);
                s.out[(lane * s.rows + m) * s.pages + n] = score == score ? score : -__builtin_inff();
            }
        }
    }
}

}  // namespace
