// All kernels for one instruction set; compiled once for each, with LEVEL and LEVEL_NAME set and the compiler told so.
// Everything but the table is in an anonymous namespace, and nothing of the standard library is used: a function
// compiled here for a newer processor must not be the one that an older one runs.
#include "jobs.hpp"

#if defined(__AVX512F__)
#include "simd_avx512.hpp"
#elif defined(__AVX2__)
#include "simd_avx2.hpp"
#else
#include "simd_portable.hpp"
#endif

using namespace longspan;

#include "rows.hpp"

#include "attention.hpp"

#include "sketch.hpp"

#include "linear.hpp"
#include "prefill.hpp"

#include "estimate.hpp"
#include "kept.hpp"
#include "linear_read.hpp"

#include "linear_bytes.hpp"
#include "linear_many.hpp"
#include "seal.hpp"
#include "slotted.hpp"

namespace {

bool runs() {
#if defined(__AVX512BF16__)
    return __builtin_cpu_supports("x86-64-v4") && __builtin_cpu_supports("avx512bf16") &&
           __builtin_cpu_supports("avx512vnni");
#elif defined(__AVX512F__)
    return __builtin_cpu_supports("x86-64-v4");
#elif defined(__AVX2__)
    return __builtin_cpu_supports("x86-64-v3");
#elif defined(__SSE4_2__)
    return __builtin_cpu_supports("x86-64-v2");
#else
    return true;
#endif
}

#if defined(__AVX512BF16__)
// Some processors take four times as long for a product of pairs as for one of float32 numbers.
bool pairs() {
    constexpr int MANY = 12, TIMES = 64, TRIES = 8;
    V::F sum[MANY];
    auto ticks = [&](auto multiply) {
        uint64_t least = ~uint64_t{0};
        for (int t = 0; t < TRIES; t++) {
            for (V::F& s : sum) s = V::set(0.0f);
            const uint64_t began = __rdtsc();
            for (int i = 0; i < TIMES; i++)
                for (V::F& s : sum) {
                    s = multiply(s);
                    __asm__ volatile("" : "+v"(s));  // or all of them would be left out
                }
            const uint64_t took = __rdtsc() - began;
            if (took < least) least = took;
        }
        return least;
    };
    const V::F one = V::set(1.0f);
    return ticks([&](V::F s) { return Brain::dot(s, one, one); }) < 3 * ticks([&](V::F s) { return V::fma(s, one, one); });
}
#else
bool pairs() { return false; }
#endif

}  // namespace

namespace longspan {

extern const Level LEVEL;
const Level LEVEL = {LEVEL_NAME,
                     runs,
                     pairs,
                     span,
                     span_scratch,
                     join,
                     sketch,
                     sketch_scratch,
                     prefill,
                     prefill_scratch,
                     estimate,
                     estimate_scratch,
                     shares,
                     kept_score,
                     kept_weigh,
                     kept_sum,
                     kept_scratch,
                     few_rows::packed,
                     few_rows::pack,
                     few_rows::linear,
                     many_rows::linear,
                     many_rows::scratch,
                     byte_rows::packed,
                     byte_rows::pack,
                     few_rows::open,
                     few_rows::rms_norm,
                     slotted::lay,
                     slotted::attend,
                     slotted::scratch,
                     slotted::CHUNK,
                     sealing::page,
                     sealing::scratch,
                     few_rows::narrow};

}  // namespace longspan
