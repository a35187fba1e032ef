// Many rows of activations times matrices of codes, multiplied as bytes: a row's channels become bytes too, with one
// scale for each group of channels that shares one in the codes. What a group gives is exact; it is scaled and summed
// on in float32. Rows of a matrix are laid side by side, four channels of a row in a word.
#pragma once

namespace {
namespace byte_rows {

constexpr int64_t GROUP = 64, TILE = Activations::SPAN, STEP = 512;  // channels of a tile
constexpr int ROWS = 4;                                              // of activations, whose sums are in registers

inline int64_t groups(const Activations& given) { return few_rows::padded(given.columns) / GROUP; }
inline int64_t rows(const Activations& given) { return (given.rows + ROWS - 1) / ROWS * ROWS; }

#if defined(__AVX512VNNI__)

// What `pack` makes of activations: bytes [T, padded K], and of each row and group the scale, and the sum of its bytes
// times what codes count from. Rows of zeros follow, up to a whole number of ROWS.
struct Packed {
    int8_t* bytes;
    float* scales;
    int32_t* offsets;

    explicit Packed(const Activations& given) {
        const int64_t many = rows(given) * groups(given);
        bytes = reinterpret_cast<int8_t*>(given.packed);
        scales = reinterpret_cast<float*>(bytes + many * GROUP);
        offsets = reinterpret_cast<int32_t*>(scales + many);
    }
};

size_t packed(const Activations& given) {
    const bool serves = given.kind != Kind::f32 && (given.stored == Kind::int8 || given.stored == Kind::int4);
    return serves ? static_cast<size_t>(rows(given) * groups(given) * (GROUP + 8)) : 0;
}

// Rows from…to, as far as there are any. A group with a number that is none, or infinite, gives none.
void pack(const Activations& given, int64_t from, int64_t to) {
    const Packed out(given);
    const int64_t row = given.columns * few_rows::bytes_of(given.kind), many = groups(given);
    const int32_t middle = given.stored == Kind::int8 ? 128 : 8;
    const __m512i ones = _mm512_set1_epi8(1), sign = _mm512_set1_epi32(0x7fffffff);
    auto read = [&](int64_t t, int64_t k) {
        if (t >= given.rows || k >= given.columns) return V::set(0.0f);
        const char* x = given.x + t * row;
        return given.kind == Kind::bf16 ? many_rows::Numbers<Half<true>>::read(x, k, given.columns)
                                        : many_rows::Numbers<Half<false>>::read(x, k, given.columns);
    };
    for (int64_t t = from; t < to && t < rows(given); t++)
        for (int64_t g = 0; g < many; g++) {
            V::F x[4];
            __m512i size = _mm512_setzero_si512();
            for (int i = 0; i < 4; i++) {
                x[i] = read(t, g * GROUP + i * V::W);
                size = _mm512_max_epi32(size, _mm512_and_si512(_mm512_castps_si512(x[i]), sign));
            }
            const int bits = _mm512_reduce_max_epi32(size);  // sizes are in the order of their bits; none is above all
            float top;
            __builtin_memcpy(&top, &bits, 4);
            const bool known = bits < 0x7f800000;
            const V::F times = V::set(known && top > 1e-30f ? 127.0f / top : 0.0f);
            int8_t* bytes = out.bytes + (t * many + g) * GROUP;
            for (int i = 0; i < 4; i++)
                _mm_storeu_si128(reinterpret_cast<__m128i*>(bytes + i * V::W),
                                 _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(V::mul(x[i], times))));
            const __m512i sum = _mm512_dpbusd_epi32(_mm512_setzero_si512(), ones, _mm512_loadu_si512(bytes));
            out.scales[t * many + g] = known ? top / 127.0f : __builtin_nanf("");
            out.offsets[t * many + g] = -middle * _mm512_reduce_add_epi32(sum);
        }
}

// A tile: words [STEP / 4, TILE] of codes, and scales [STEP / GROUP, TILE].
struct Tiled {
    uint32_t* words;
    float* scales;
};

template <int BITS>
void lay(const Activations& given, const char* weight, int64_t from, int64_t to, int64_t first, int64_t last,
         const Tiled& tile) {
    using Codes = few_rows::Codes<BITS>;
    const int64_t stride = Codes::stride(given.columns), codes = groups(given) * Codes::BYTES;
    for (int64_t n = 0; n < TILE; n += V::W)
        for (int64_t g = first; g < last; g++) {
            V::F x[V::W];
            float* scales = tile.scales + (g - first) * TILE + n;
            for (int64_t j = 0; j < V::W; j++) {
                const int64_t row = from + n + j;
                __m512i bytes = _mm512_setzero_si512();
                scales[j] = 0;
                if (row < to) {
                    const char* at = weight + row * stride;
                    scales[j] = few_rows::wide(Kind::bf16, at + codes, g);
                    at += g * Codes::BYTES;
                    if constexpr (BITS == 8) {
                        bytes = _mm512_loadu_si512(at);
                    } else {
                        const __m256i both = V::half(at), low = _mm256_set1_epi8(15);
                        bytes = _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_and_si256(both, low)),
                                                   _mm256_and_si256(_mm256_srli_epi16(both, 4), low), 1);
                    }
                }
                x[j] = _mm512_castsi512_ps(bytes);
            }
            many_rows::transpose(x);
            for (int64_t j = 0; j < V::W; j++)
                _mm512_storeu_ps(tile.words + ((g - first) * GROUP / 4 + j) * TILE + n, x[j]);
        }
}

// sums [M, TILE] of activations first…last, which begin a whole number of ROWS after the first, over a tile's groups
// from…to. The last of them may be followed by others, up to a whole number of ROWS.
inline void over(const Packed& x, int64_t many, int64_t first, int64_t last, int64_t from, int64_t to,
                 const Tiled& tile, float* sums) {
    constexpr int N = TILE / V::W;
    for (int64_t m = first; m < last; m += ROWS, sums += ROWS * TILE) {
        const int8_t* bytes = x.bytes + m * many * GROUP;
        for (int64_t g = from; g < to; g++) {
            __m512i sum[ROWS][N];
            for (int r = 0; r < ROWS; r++)
                for (int i = 0; i < N; i++) sum[r][i] = _mm512_set1_epi32(x.offsets[(m + r) * many + g]);
            const uint32_t* words = tile.words + (g - from) * GROUP / 4 * TILE;
            for (int64_t k = 0; k < GROUP; k += 4, words += TILE) {
                __m512i w[N];
                for (int i = 0; i < N; i++) w[i] = _mm512_loadu_si512(words + i * V::W);
                for (int r = 0; r < ROWS; r++) {
                    int32_t four;
                    __builtin_memcpy(&four, bytes + (r * many + g) * GROUP + k, 4);
                    const __m512i a = _mm512_set1_epi32(four);
                    for (int i = 0; i < N; i++) sum[r][i] = _mm512_dpbusd_epi32(sum[r][i], w[i], a);
                }
            }
            for (int r = 0; r < ROWS; r++) {
                const V::F scale = V::set(x.scales[(m + r) * many + g]);
                for (int i = 0; i < N; i++) {
                    const V::F both = V::mul(V::load(tile.scales + (g - from) * TILE + i * V::W), scale);
                    float* out = sums + r * TILE + i * V::W;
                    V::store(out, V::fma(_mm512_cvtepi32_ps(sum[r][i]), both, g ? V::load(out) : V::set(0.0f)));
                }
            }
        }
    }
}

// sums [M, TILE] of activations first…last and rows from…to of a matrix. tile: for STEP · TILE bytes and their scales.
inline void product_of(const Activations& given, const Matrix& matrix, int64_t from, int64_t to, int64_t first,
                       int64_t last, float* tile, float* sums) {
    const Packed x(given);
    const Tiled tiled{reinterpret_cast<uint32_t*>(tile), tile + STEP * TILE / 4};
    const int64_t many = groups(given);
    for (int64_t g = 0; g < many; g += STEP / GROUP) {
        const int64_t end = g + STEP / GROUP < many ? g + STEP / GROUP : many;
        if (given.stored == Kind::int8)
            lay<8>(given, matrix.weight, from, to, g, end, tiled);
        else
            lay<4>(given, matrix.weight, from, to, g, end, tiled);
        over(x, many, first, last, g, end, tiled, sums);
    }
}

#else

size_t packed(const Activations&) { return 0; }
void pack(const Activations&, int64_t, int64_t) {}
inline void product_of(const Activations&, const Matrix&, int64_t, int64_t, int64_t, int64_t, float*, float*) {}

#endif

}  // namespace byte_rows
}  // namespace
