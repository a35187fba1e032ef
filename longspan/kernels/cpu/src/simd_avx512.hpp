// Sixteen floats at a time: AVX-512 (F, BW, CD, DQ, VL).
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace {

struct V {
    static constexpr int W = 16, BLOCK = 4, ROWS = 6;
    using F = __m512;

    static F load(const float* p) { return _mm512_loadu_ps(p); }
    static void store(float* p, F x) { _mm512_storeu_ps(p, x); }
    static F set(float x) { return _mm512_set1_ps(x); }
    static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
    static F add(F a, F b) { return _mm512_add_ps(a, b); }
    static F sub(F a, F b) { return _mm512_sub_ps(a, b); }
    static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
    static F div(F a, F b) { return _mm512_div_ps(a, b); }
    static F max(F a, F b) { return _mm512_max_ps(a, b); }  // b where either is NaN
    static F less(F x, F limit, F yes, F no) {
        return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, limit, _CMP_LT_OQ), no, yes);
    }
    static __m256i half(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
    static F bf16(const uint16_t* p) {
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half(p)), 16));
    }
    static F f16(const uint16_t* p) { return _mm512_cvtph_ps(half(p)); }
    static __m512i wide(const uint8_t* p) {
        return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    }
    static F u8(const uint8_t* p) { return _mm512_cvtepi32_ps(wide(p)); }
    static void bytes(F x, uint8_t* out) {  // of whole numbers 0…255
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x)));
    }
    // permutes read the low four bits of an index, so a table of 16 numbers needs no mask
    static F table(__m512i index, F numbers) { return _mm512_permutexvar_ps(index, numbers); }
    static void nibbles(const uint8_t* p, F& low, F& high) {
        const F numbers = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        __m512i x = wide(p);
        low = table(x, numbers);
        high = table(_mm512_srli_epi32(x, 4), numbers);
    }
    static void pairs(const uint8_t* p, F* codes) {
        const F first = _mm512_setr_ps(0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3);
        const F second = _mm512_setr_ps(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
        __m512i x = wide(p), y = _mm512_srli_epi32(x, 4);
        codes[0] = table(x, first);
        codes[1] = table(x, second);
        codes[2] = table(y, first);
        codes[3] = table(y, second);
    }
    // low: a[0], b[0], a[1], b[1], …; high: what follows
    static void zip(F a, F b, F& low, F& high) {
        const __m512i first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        low = _mm512_permutex2var_ps(a, first, b);
        high = _mm512_permutex2var_ps(a, _mm512_add_epi32(first, _mm512_set1_epi32(8)), b);
    }
    // 2^n for whole n
    static F power(F n) { return _mm512_scalef_ps(set(1.0f), n); }
    static F round(F x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
    static __mmask16 below(int64_t n) { return n <= 0 ? 0 : n >= 16 ? 0xffff : static_cast<__mmask16>((1u << n) - 1); }
    // x where from ≤ lane < to, −inf elsewhere
    static F only(F x, int64_t from, int64_t to) {
        __mmask16 keep = static_cast<__mmask16>(below(to) & ~below(from));
        return _mm512_mask_blend_ps(keep, set(-__builtin_inff()), x);
    }
    // w[0], … each 2^log times
    static F spread(const float* w, int log) {
        const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        return _mm512_permutexvar_ps(_mm512_srl_epi32(lanes, _mm_cvtsi32_si128(log)), load(w));
    }
    static bool above(F x, float limit) { return _mm512_cmp_ps_mask(x, set(limit), _CMP_GT_OQ) != 0; }  // any of them
    static float most(F x) { return _mm512_reduce_max_ps(x); }
    static float sum(F x) { return _mm512_reduce_add_ps(x); }
};

}  // namespace
