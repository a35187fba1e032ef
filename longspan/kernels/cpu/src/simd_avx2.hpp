// Eight floats at a time: AVX2, FMA and F16C.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace {

struct V {
    static constexpr int W = 8, BLOCK = 2, ROWS = 6;
    using F = __m256;

    static F load(const float* p) { return _mm256_loadu_ps(p); }
    static void store(float* p, F x) { _mm256_storeu_ps(p, x); }
    static F set(float x) { return _mm256_set1_ps(x); }
    static F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
    static F add(F a, F b) { return _mm256_add_ps(a, b); }
    static F sub(F a, F b) { return _mm256_sub_ps(a, b); }
    static F mul(F a, F b) { return _mm256_mul_ps(a, b); }
    static F div(F a, F b) { return _mm256_div_ps(a, b); }
    static F max(F a, F b) { return _mm256_max_ps(a, b); }  // b where either is NaN
    static F less(F x, F limit, F yes, F no) { return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(x, limit, _CMP_LT_OQ)); }
    static __m128i half(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
    static F bf16(const uint16_t* p) {
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half(p)), 16));
    }
    static F f16(const uint16_t* p) { return _mm256_cvtph_ps(half(p)); }
    static __m256i wide(const uint8_t* p) {
        return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
    }
    static F u8(const uint8_t* p) { return _mm256_cvtepi32_ps(wide(p)); }
    static void bytes(F x, uint8_t* out) {  // of whole numbers 0…255
        const __m256i n = _mm256_cvtps_epi32(x);
        const __m128i both = _mm_packs_epi32(_mm256_castsi256_si128(n), _mm256_extracti128_si256(n, 1));
        _mm_storel_epi64(reinterpret_cast<__m128i*>(out), _mm_packus_epi16(both, both));
    }
    static void nibbles(const uint8_t* p, F& low, F& high) {
        __m256i x = wide(p);
        low = _mm256_cvtepi32_ps(_mm256_and_si256(x, _mm256_set1_epi32(15)));
        high = _mm256_cvtepi32_ps(_mm256_srli_epi32(x, 4));
    }
    static void pairs(const uint8_t* p, F* codes) {
        __m256i x = wide(p), three = _mm256_set1_epi32(3);
        codes[0] = _mm256_cvtepi32_ps(_mm256_and_si256(x, three));
        codes[1] = _mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srli_epi32(x, 2), three));
        codes[2] = _mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srli_epi32(x, 4), three));
        codes[3] = _mm256_cvtepi32_ps(_mm256_srli_epi32(x, 6));
    }
    // low: a[0], b[0], a[1], b[1], …; high: what follows
    static void zip(F a, F b, F& low, F& high) {
        const F even = _mm256_unpacklo_ps(a, b), odd = _mm256_unpackhi_ps(a, b);
        low = _mm256_permute2f128_ps(even, odd, 0x20);
        high = _mm256_permute2f128_ps(even, odd, 0x31);
    }
    // 2^n for whole n, −126…127
    static F power(F n) {
        __m256i bits = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
        return _mm256_castsi256_ps(_mm256_slli_epi32(bits, 23));
    }
    static F round(F x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
    static __m256i lanes() { return _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7); }
    // x where from ≤ lane < to, −inf elsewhere
    static F only(F x, int64_t from, int64_t to) {
        auto at = [](int64_t n) { return _mm256_set1_epi32(n < 0 ? 0 : n > W ? W : static_cast<int>(n)); };
        __m256i keep = _mm256_andnot_si256(_mm256_cmpgt_epi32(at(from), lanes()), _mm256_cmpgt_epi32(at(to), lanes()));
        return _mm256_blendv_ps(set(-__builtin_inff()), x, _mm256_castsi256_ps(keep));
    }
    // w[0], … each 2^log times
    static F spread(const float* w, int log) {
        return _mm256_permutevar8x32_ps(load(w), _mm256_srl_epi32(lanes(), _mm_cvtsi32_si128(log)));
    }
    static bool above(F x, float limit) {  // any of them
        return _mm256_movemask_ps(_mm256_cmp_ps(x, set(limit), _CMP_GT_OQ)) != 0;
    }
    static float most(F x) {
        __m128 a = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
        a = _mm_max_ps(a, _mm_movehl_ps(a, a));
        return _mm_cvtss_f32(_mm_max_ss(a, _mm_movehdup_ps(a)));
    }
    static float sum(F x) {
        __m128 a = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
        a = _mm_add_ps(a, _mm_movehl_ps(a, a));
        return _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)));
    }
};

}  // namespace
