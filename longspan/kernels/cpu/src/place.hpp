// A step's keys and values to their pages, and its queries ready for attention.
#pragma once

#include <cstdint>

namespace longspan {

// T rows of H query and G key heads of D channels; of each, channel d of head h of row t at t·row + h·head + d.
// Keys turn by cos, sin [T, half], queries by theirs, [T, query_half], times `scale`; half 0: nothing
// turns. Keys go to column
// places[g·place_lane + t] of page pages[g, t], [D, P]; values to its row, [P, D]. queries_out [T, H, D], float32.
struct Place {
    int dtype;  // of queries, keys, values and pages: 0 float32, 1 bfloat16, 2 float16
    int64_t rows, heads, lanes, dim, page, half, query_half;
    const char *queries, *keys, *values;
    int64_t query_row, query_head, key_row, key_head, value_row, value_head;
    const float *key_cos, *key_sin, *query_cos, *query_sin;
    float scale;
    const int64_t *pages, *places;
    int64_t place_lane;
    char *page_keys, *page_values;
    float* queries_out;
};

void place(int threads, const Place& work);

}  // namespace longspan
