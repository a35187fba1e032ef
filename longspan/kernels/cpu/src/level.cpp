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

}  // namespace

namespace longspan {

extern const Level LEVEL;
const Level LEVEL = {LEVEL_NAME,
                     runs,
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
                     few_rows::open,
                     few_rows::rms_norm};

}  // namespace longspan
