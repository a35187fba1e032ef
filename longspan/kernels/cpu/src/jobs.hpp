// What the kernels are asked, and the table of their versions, one for each instruction set.
// Tensors arrive as pointers; the Python side has checked their dtypes, shapes and strides.
#pragma once

#include <cstddef>
#include <cstdint>

namespace longspan {

enum class Kind : int { f32, bf16, f16, int8, int4 };

}  // namespace longspan

#include "linear_jobs.hpp"

namespace longspan {

// Pages of one format, in text order. ids [pages, lanes]: where each lies in the slab; null: one after another.
// keys [D, P] and values [P, D] of a page; with the integer kinds key_min and key_step [D], value_min and
// value_step [P, groups], all float16.
struct Segment {
    Kind kind;
    int64_t pages;
    const int64_t* ids;
    const char *keys, *values;
    const uint16_t *key_min, *key_step, *value_min, *value_step;
    int64_t groups;
    int64_t start;  // number of the first page in the work
};

// Attention of R consecutive queries of one sequence in one layer; positions count as in `Work`.
struct Attention {
    const float* queries;  // [R, H, D]
    int64_t rows, heads, lanes, dim, page, half;
    int64_t first, base, begin, window;  // window 0: none
    const float *cos, *sin;              // [N, half]; half 0: nothing is rotated
    float softcap;                       // 0: none
    bool narrow;                         // products may be of bfloat16 numbers and of bytes

    int64_t group() const { return heads / lanes; }
    int64_t many() const { return rows * group(); }      // query rows that share a lane
    int64_t part() const { return many() * (dim + 2); }  // floats of a partial result: sums [M, D], top [M], total [M]
};

// Pages from…to of a segment in lanes lane…lane_to; partial results of two lanes lie `stride` floats apart.
struct Stretch {
    int64_t lane, lane_to, from, to, stride;
};

// Scores of a 2-bit copy of the keys: codes [D/4, P] bytes, low and step [D] float16 of a page. A page of a lane
// lies at lane·lane_stride + page·page_stride, in bytes.
struct Sketch {
    const float* queries;  // [B, R, D]
    int64_t lanes, rows, pages, dim, slots;
    const char *codes, *low, *step;
    int64_t codes_lane, codes_page, low_lane, low_page, step_lane, step_page;
    float* out;  // [B, R, N]
};

// Attention of R consecutive queries, many of them, of one sequence in one layer; positions count as in `Work`.
struct Prompt {
    const float* queries;  // [R, H, D]
    int64_t rows, heads, lanes, dim, page, half;
    int64_t first, base, begin, window;  // window 0: none
    const float *cos, *sin;              // [N, half]; half 0: nothing is rotated
    float softcap;                       // 0: none
    bool narrow;                         // products may be as exact as those of bfloat16 numbers, summed in float32
    bool pairs;                          // then they are of such numbers, where that is compiled
    const float* sinks;                  // [H] or null
    const uint8_t* chosen;               // [lanes, blocks of `chosen_rows` rows, N]: pages that are read; null: all
    int64_t chosen_rows, pages;
    float* out;             // [R, H, D]; before the last reading, sums that are not divided yet
    float *tops, *totals;   // [R, H], between readings

    int64_t group() const { return heads / lanes; }
};

// Rows from…to of a lane, over some of the pages, in the order of the text.
struct Tile {
    int64_t lane, from, to;
    const Segment* segments;
    int64_t count;
    bool first, last;  // reading
};

// One row in `stride` of each whole block of a prompt, the last of each: what it gives to every page.
struct Probe {
    Prompt prompt;  // whose `out` and what follows it are not used
    int64_t stride, block;
    float *tops, *sums;  // [blocks · rows, H, N]: the greatest score, and the sum of exp(score - top)

    int64_t rows() const { return block / stride; }
    int64_t blocks() const { return prompt.rows / block; }
    int64_t count() const { return blocks() * rows(); }
};

// Attention of few rows over what eviction left in the lanes of a layer, each slot with a position of its own.
struct Kept {
    const float* queries;  // [R, H, D]
    const int64_t* at;     // [R], text positions
    int64_t rows, heads, lanes, dim, page;
    int64_t slots, columns;         // of the fullest lane; of the table
    const int64_t *table, *sealed;  // pages [lanes, columns]; of each lane so many, the first, are of `coded`
    const int64_t* counts;          // [lanes]: slots
    Kind kind;
    const char *keys, *values;  // of the other pages
    Segment coded;              // without ids
    const int64_t* positions;   // [lanes, room], −1 where nothing is held
    const float* weights;       // [lanes, room], tokens that a slot stands for; null: one each
    int64_t room, half;
    const float *cos, *sin;  // [·, half]; half 0: nothing is turned
    int64_t span;            // slots between two lanes of what follows, of which `slots` are held at most
    const int64_t* turns;    // [lanes, span]: a key turns by this row of the table, backwards where it is negative
    int64_t window, sinks;   // window 0: none
    float softcap;           // 0: none
    const float* learned;    // [H] or null
    float* out;              // [R, H, D]
    float* mass;             // [lanes, span], or null: to this is added what all rows gave
    float* recent;           // [lanes, group, span], or null: the same of rows at `since` and later
    int64_t since;
    int64_t* used;  // [lanes, span], or null: the last row that gave a page more than `share` of each head; −1: none
    float share;
    float* scores;  // [lanes, R·group, width], a whole number of pages

    int64_t group() const { return heads / lanes; }
    int64_t many() const { return rows * group(); }
    int64_t pages(int64_t lane) const { return (counts[lane] + page - 1) / page; }
    int64_t width() const { return (slots + page - 1) / page * page; }
};

// Attention of many rows over gathered slots. Positions count from the first row; `at`, `late` and `early` are whole
// numbers. Arrays by slot are `width` wide, and go on with NOTHING.
struct Slotted {
    static constexpr float NOTHING = 1e30f;
    static constexpr int64_t UNIT = 64;
    const float* queries;  // [R, H, D], turned and scaled
    const float* at;       // [R], ascending
    int64_t rows, heads, lanes, dim, slots;
    const float* keys;  // turned; numbers between two lanes, and between two slots
    int64_t key_lane, key_slot;
    Kind kind;  // of the values
    const char* values;
    int64_t value_lane, value_slot;
    const float *late, *early;  // [lanes, width]: a row sees a slot from `late` on, while it is within a window of `early`
    const float* bias;          // [lanes, width], added to scores; null: nothing
    float window, softcap;      // early null: no window; softcap 0: none
    const float* learned;       // [H] or null
    float* out;                 // [R, H, D]
    float *mass, *recent;       // [lanes, slots]; [lanes, group, slots] of rows `since` and later; or null
    int64_t since;
    int64_t* used;  // [lanes, pages]: the last row that gave a page more than `share` of each head, or −1; or null
    int64_t page;
    float share;
    int64_t block;                   // rows of a task
    float *laid_keys, *laid_values;  // [lanes, D, width], [lanes, width, D]
    const float *first, *newest;     // of each chunk of a lane: the least `late`, the greatest `early`

    int64_t group() const { return heads / lanes; }
    int64_t width() const { return (slots + UNIT - 1) / UNIT * UNIT; }
};

// Matrices [pages, rows, columns] that become codes of 2, 4 or 8 bits; low and step [pages, rows, groups], float16.
// Two codes of a row, `(columns + 1) / 2` apart, share a byte, or four of a column, `rows / 4` apart; the first lowest.
struct Sealing {
    Kind kind;
    int64_t pages, rows, columns, groups;
    int bits;
    const char* x;
    uint8_t* codes;
    uint16_t *low, *step;
};

// One compiled version of everything.
struct Level {
    const char* name;
    bool (*runs)();   // on this processor
    bool (*pairs)();  // whether it multiplies bfloat16 numbers in pairs faster than float32 ones
    void (*span)(const Attention&, const Segment&, const Stretch&, float* scratch, float* parts);
    size_t (*span_scratch)(const Attention&);  // floats
    void (*join)(const Attention&, int64_t lane, const float* const* parts, int64_t count, const float* sinks,
                 float* out);
    void (*sketch)(const Sketch&, int64_t from, int64_t to, float* scratch);  // pages, counted lane by lane
    size_t (*sketch_scratch)(const Sketch&);
    void (*prefill)(const Prompt&, const Tile&, float* scratch);
    size_t (*prefill_scratch)(const Prompt&, int64_t rows);  // of a tile
    void (*estimate)(const Probe&, const Segment&, int64_t lane, int64_t from, int64_t to, float* scratch);
    size_t (*estimate_scratch)(const Probe&);
    void (*shares)(const Probe&, int64_t lane, int64_t block, float* out);
    void (*kept_score)(const Kept&, int64_t lane, int64_t from, int64_t to, float* scratch);  // pages
    void (*kept_weigh)(const Kept&, int64_t lane);
    void (*kept_sum)(const Kept&, int64_t lane, int64_t from, int64_t to, float* scratch, float* part);  // [M, D]
    size_t (*kept_scratch)(const Kept&);
    size_t (*linear_packed)(const Activations&);  // bytes
    void (*linear_pack)(const Activations&);
    void (*linear)(const Activations&, const Matrix* gate, Act, const Matrix&, int64_t from, int64_t to, char* out);
    void (*many)(const Activations&, const Matrix* gate, Act, const Matrix&, int64_t from, int64_t to, int64_t first,
                 int64_t last, char* out, float* scratch);
    size_t (*many_scratch)(int64_t rows, bool gated);
    size_t (*bytes_packed)(const Activations&);  // of what is packed for `many`, to be multiplied as bytes; 0: it is not
    void (*bytes_pack)(const Activations&, int64_t from, int64_t to);
    void (*open)(const Activations&, const Matrix&, int64_t from, int64_t to, char* out);
    void (*rms_norm)(const Norm&, float* scratch);
    void (*slotted_lay)(const Slotted&, int64_t lane, int64_t from, int64_t to);
    void (*slotted)(const Slotted&, int64_t lane, int64_t from, int64_t to, float* scratch, float* mass, float* recent,
                    int64_t* used);
    size_t (*slotted_scratch)(const Slotted&);
    int64_t chunk;  // slots
    bool (*seal)(const Sealing&, int64_t page, float* scratch);  // false: a number that float16 cannot bound
    size_t (*seal_scratch)(const Sealing&);
    void (*narrow)(Kind, const float* from, char* to, int64_t n);
};

extern const Level* const levels[];  // the least first
extern const int level_count;

}  // namespace longspan
