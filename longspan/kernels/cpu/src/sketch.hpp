// The best slot of a page, scored on its 2-bit copy: codes are read once for all rows.
#pragma once

namespace {

constexpr int64_t FUSED = 3;  // rows up to which codes stay in registers; more rows share codes opened to memory

struct SketchRoom {
    float *low, *step, *scaled, *bias, *codes, *scores;
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
        codes = take(s.rows > FUSED ? s.dim * s.slots : 0);
        scores = take(s.rows > FUSED ? s.rows * s.slots : 0);
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
void best_fused(const Sketch& s, const uint8_t* codes, const float* scaled, V::F* best) {
    int64_t at = 0;
    for (; at + V::BLOCK * V::W <= s.slots; at += V::BLOCK * V::W)
        best_block<M, V::BLOCK>(s, codes, scaled, at, best);
    for (; at < s.slots; at += V::W) best_block<M, 1>(s, codes, scaled, at, best);
}

inline void open_codes(const Sketch& s, const uint8_t* codes, float* out) {
    const int64_t quarter = s.dim / 4;
    for (int64_t g = 0; g < quarter; g++)
        for (int64_t i = 0; i < s.slots; i += V::W) {
            V::F code[4];
            V::pairs(codes + g * s.slots + i, code);
            for (int c = 0; c < 4; c++) V::store(out + (c * quarter + g) * s.slots + i, code[c]);
        }
}

void sketch(const Sketch& s, int64_t lane, int64_t from, int64_t to, float* scratch) {
    const SketchRoom r(s, scratch);
    const float* queries = s.queries + lane * s.rows * s.dim;
    const int64_t bytes = s.dim / 4 * s.slots, whole = s.dim / V::W * V::W;
    for (int64_t n = from; n < to; n++) {
        const char *codes = s.codes + lane * s.codes_lane + n * s.codes_page;
        const char *low = s.low + lane * s.low_lane + n * s.low_page;
        const char *step = s.step + lane * s.step_lane + n * s.step_page;
        if (n + 2 < to) {  // pages of a lane lie far apart, where the processor does not look ahead by itself
            for (int64_t line = 0; line < bytes; line += 64) __builtin_prefetch(codes + 2 * s.codes_page + line);
            for (int64_t line = 0; line < 2 * s.dim; line += 64) {
                __builtin_prefetch(low + 2 * s.low_page + line);
                __builtin_prefetch(step + 2 * s.step_page + line);
            }
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
        auto give = [&](int64_t m, V::F best) {
            float score = r.bias[m] + V::most(best);
            s.out[(lane * s.rows + m) * s.pages + n] = score == score ? score : -__builtin_inff();
        };
        const auto* packed = reinterpret_cast<const uint8_t*>(codes);
        V::F best[FUSED];
        for (auto& b : best) b = V::set(-__builtin_inff());
        if (s.rows <= FUSED) {
            if (s.rows == 1) best_fused<1>(s, packed, r.scaled, best);
            else if (s.rows == 2) best_fused<2>(s, packed, r.scaled, best);
            else best_fused<3>(s, packed, r.scaled, best);
            for (int64_t m = 0; m < s.rows; m++) give(m, best[m]);
            continue;
        }
        open_codes(s, packed, r.codes);
        const char* opened = reinterpret_cast<const char*>(r.codes);
        multiply<Float, false>(
            {opened, 0, s.dim, s.slots, r.scaled, s.dim, nullptr, nullptr, r.scores, s.slots, 1, nullptr}, s.rows);
        for (int64_t m = 0; m < s.rows; m++) {
            V::F most = V::load(r.scores + m * s.slots);
            for (int64_t i = V::W; i < s.slots; i += V::W) most = V::max(most, V::load(r.scores + m * s.slots + i));
            give(m, most);
        }
    }
}

}  // namespace
