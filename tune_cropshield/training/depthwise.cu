// Depthwise convolution, its input's gradient and its weights', in half precision and channels_last, summed in fp32.
//
// Images lie as (N, H, W, C), weights as (C, 1, K, K). K: 3 or 5, S: stride 1 or 2, padding K / 2. A warp's threads lie along the channels, so that each of
// its reads is one piece of memory; a thread keeps several sums in registers and reads what it shares between them once.
// Compiled when it is first needed (see depthwise.py), which takes two seconds; cuDNN's kernels take 150 ms for each shape of each layer.
// Given from outside (depthwise.py): BFLOAT16 (1 or 0), THREADS of a block, MOST_ALONG of them along the channels, STRIP_1 and STRIP_2 (results of a row
// for each thread, by stride), LANES.

typedef unsigned short half_bits;

struct Pair { float a, b; };

__device__ __forceinline__ Pair unpack(unsigned bits) {
    Pair pair;
#if BFLOAT16
    pair.a = __uint_as_float(bits << 16);
    pair.b = __uint_as_float(bits & 0xffff0000u);
#else
    asm("{ .reg .b16 low, high; mov.b32 {low, high}, %2; cvt.f32.f16 %0, low; cvt.f32.f16 %1, high; }" : "=f"(pair.a), "=f"(pair.b) : "r"(bits));
#endif
    return pair;
}

__device__ __forceinline__ half_bits rounded(float value) {
    half_bits bits;
#if BFLOAT16
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
#else
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
#endif
    return bits;
}

__device__ __forceinline__ unsigned pack(float a, float b) { return rounded(a) | (unsigned)rounded(b) << 16; }

__device__ __forceinline__ float widened(half_bits bits) { return unpack(bits).a; }

struct Four { float value[4]; };

__device__ __forceinline__ Four load(const uint2* place) {
    const uint2 bits = *place;
    const Pair first = unpack(bits.x), second = unpack(bits.y);
    return {{first.a, first.b, second.a, second.b}};
}

__device__ __forceinline__ void store(uint2* place, const float* value) {
    *place = make_uint2(pack(value[0], value[1]), pack(value[2], value[3]));
}

__device__ __forceinline__ void add_product(float* sum, const Four& in, const float4& weight) {
    sum[0] += in.value[0] * weight.x;
    sum[1] += in.value[1] * weight.y;
    sum[2] += in.value[2] * weight.z;
    sum[3] += in.value[3] * weight.w;
}

// The weights of the block's channels, as [tap][quad] of four floats; turned: the last tap first.
template <int K>
__device__ void load_weights(float4* weights, const half_bits* source, int first_quad, int quads, bool turned) {
    for (int i = threadIdx.y * blockDim.x + threadIdx.x; i < K * K * quads * 4; i += blockDim.x * blockDim.y) {
        const int tap = i % (K * K), channel = i / (K * K);
        reinterpret_cast<float*>(weights)[(turned ? K * K - 1 - tap : tap) * quads * 4 + channel] = widened(source[first_quad * 4 * K * K + i]);
    }
    __syncthreads();
}

// y = convolution of x. Threads: (quads of channels, strips of P results along a row). TURNED: with the weights turned by 180 degrees, which for
// stride 1 makes it the gradient with respect to the input.
template <int K, int S, int P, bool TURNED>
__device__ void convolve(const uint2* x, const half_bits* w, uint2* y, int H, int W, int HO, int WO, int C, int strips) {
    __shared__ float4 weights[K * K * MOST_ALONG];
    const int quads = blockDim.x, row_quads = C / 4, quad = blockIdx.y * quads + threadIdx.x;
    load_weights<K>(weights, w, blockIdx.y * quads, quads, TURNED);
    const int strip = blockIdx.x * blockDim.y + threadIdx.y;
    if (strip >= strips) return;
    const int strips_per_row = (WO + P - 1) / P, row = strip / strips_per_row, first = (strip - row * strips_per_row) * P;
    const int image = row / HO, top = (row - image * HO) * S - K / 2, left = first * S - K / 2;
    float sum[P][4] = {};
#pragma unroll
    for (int i = 0; i < K; i++) {
        if (top + i < 0 || top + i >= H) continue;
        float4 taps[K];
#pragma unroll
        for (int j = 0; j < K; j++) taps[j] = weights[(i * K + j) * quads + threadIdx.x];
        const uint2* source = x + ((long long)(image * H + top + i) * W) * row_quads + quad;
#pragma unroll
        for (int column = 0; column < (P - 1) * S + K; column++) {
            const int place = left + column;
            if (place < 0 || place >= W) continue;
            const Four in = load(source + place * row_quads);
#pragma unroll
            for (int p = 0; p < P; p++) {
                const int j = column - p * S;
                if (j >= 0 && j < K) add_product(sum[p], in, taps[j]);
            }
        }
    }
    uint2* target = y + ((long long)row * WO + first) * row_quads + quad;
#pragma unroll
    for (int p = 0; p < P; p++)
        if (first + p < WO) store(target + p * row_quads, sum[p]);
}

// dx of a convolution of stride 2. Threads: (quads of channels, pairs of neighbours along a row of the input, whatever STRIP_2).
template <int K>
__device__ void spread(const uint2* dy, const half_bits* w, uint2* dx, int H, int W, int HO, int WO, int C, int pairs) {
    __shared__ float4 weights[K * K * MOST_ALONG];
    const int quads = blockDim.x, row_quads = C / 4, quad = blockIdx.y * quads + threadIdx.x;
    load_weights<K>(weights, w, blockIdx.y * quads, quads, false);
    const int pair = blockIdx.x * blockDim.y + threadIdx.y;
    if (pair >= pairs) return;
    const int pairs_per_row = (W + 1) / 2, row = pair / pairs_per_row, half = pair - row * pairs_per_row;
    const int image = row / H, bottom = row - image * H + K / 2;
    float sum[2][4] = {};
#pragma unroll
    for (int i = 0; i < K; i++) {
        const int from = bottom - i;
        if (from < 0 || from % 2 || from / 2 >= HO) continue;
        float4 taps[K];
#pragma unroll
        for (int j = 0; j < K; j++) taps[j] = weights[(i * K + j) * quads + threadIdx.x];
        const uint2* source = dy + ((long long)(image * HO + from / 2) * WO) * row_quads + quad;
#pragma unroll
        for (int offset = -(K / 4); offset <= (K / 2 + 1) / 2; offset++) {  // of the results that a pair has gone into
            const int place = half + offset;
            if (place < 0 || place >= WO) continue;
            const Four in = load(source + place * row_quads);
#pragma unroll
            for (int j = 0; j < K; j++) {
                const int p = 2 * offset - K / 2 + j;
                if (p >= 0 && p < 2) add_product(sum[p], in, taps[j]);
            }
        }
    }
    uint2* target = dx + ((long long)row * W + 2 * half) * row_quads + quad;
    store(target, sum[0]);
    if (2 * half + 1 < W) store(target + row_quads, sum[1]);
}

// The pair at `place` of a row, 0 outside.
__device__ __forceinline__ Pair inside(const unsigned* row, int place, int W, int row_pairs) {
    return unpack(place < 0 || place >= W ? 0u : row[place * row_pairs]);
}

constexpr int TAPS_AT_ONCE = 4;

// Each block's part of dw, as (blocks, K * K, C) in fp32. Threads: (pairs of channels, segments of the results' rows).
template <int K, int S>
__device__ void correlate(const unsigned* x, const unsigned* dy, float2* parts, int H, int W, int HO, int WO, int C, int length, int segments) {
    __shared__ float2 shared[TAPS_AT_ONCE * THREADS];
    const int row_pairs = C / 2, pair = blockIdx.y * blockDim.x + threadIdx.x;
    const int per_row = (WO + length - 1) / length;
    float2 sum[K * K] = {};
    for (int segment = blockIdx.x * blockDim.y + threadIdx.y; segment < segments; segment += gridDim.x * blockDim.y) {
        const int row = segment / per_row, first = (segment - row * per_row) * length, end = min(first + length, WO);
        const int image = row / HO, top = (row - image * HO) * S - K / 2;
        const unsigned* gradients = dy + (long long)row * WO * row_pairs + pair;
#pragma unroll
        for (int i = 0; i < K; i++) {
            if (top + i < 0 || top + i >= H) continue;
            const unsigned* images = x + (long long)(image * H + top + i) * W * row_pairs + pair;
            Pair in[K];  // what lies under the kernel's row, which moves to the right by S
#pragma unroll
            for (int j = 0; j < K - S; j++) in[j + S] = inside(images, first * S - K / 2 + j, W, row_pairs);
            for (int place = first; place < end; place++) {
                const Pair gradient = unpack(gradients[place * row_pairs]);
#pragma unroll
                for (int j = 0; j < K; j++) in[j] = j < K - S ? in[j + S] : inside(images, place * S - K / 2 + j, W, row_pairs);
#pragma unroll
                for (int j = 0; j < K; j++) {
                    sum[i * K + j].x += in[j].a * gradient.a;
                    sum[i * K + j].y += in[j].b * gradient.b;
                }
            }
        }
    }
    float2* target = parts + (long long)blockIdx.x * K * K * row_pairs + pair;
#pragma unroll
    for (int first = 0; first < K * K; first += TAPS_AT_ONCE) {
        __syncthreads();
#pragma unroll
        for (int t = 0; t < TAPS_AT_ONCE; t++)
            if (first + t < K * K) shared[(t * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x] = sum[first + t];
        __syncthreads();
        if (threadIdx.y < TAPS_AT_ONCE && first + threadIdx.y < K * K) {
            float2 total = make_float2(0, 0);
            for (int i = 0; i < blockDim.y; i++) {
                const float2 part = shared[(threadIdx.y * blockDim.y + i) * blockDim.x + threadIdx.x];
                total.x += part.x;
                total.y += part.y;
            }
            target[(first + threadIdx.y) * row_pairs] = total;
        }
    }
}

// dw (C, 1, K, K) from the blocks' parts. Threads: (32 places of [tap][channel], LANES that share the parts).
__device__ void add_parts(const float* parts, half_bits* dw, int blocks, int C, int taps) {
    __shared__ float shared[LANES][32];
    const int place = blockIdx.x * 32 + threadIdx.x;
    float sum = 0;
    if (place < taps * C)
#pragma unroll 8
        for (int block = threadIdx.y; block < blocks; block += LANES) sum += parts[(long long)block * taps * C + place];
    shared[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y || place >= taps * C) return;
    for (int lane = 1; lane < LANES; lane++) sum += shared[lane][threadIdx.x];
    dw[(place % C) * taps + place / C] = rounded(sum);
}

#define ENTRY extern "C" __global__ __launch_bounds__(THREADS) void

#define CONVOLVE(NAME, K, S, P, TURNED) \
    ENTRY NAME(const uint2* x, const half_bits* w, uint2* y, int H, int W, int HO, int WO, int C, int strips) { \
        convolve<K, S, P, TURNED>(x, w, y, H, W, HO, WO, C, strips); \
    }
#define SPREAD(NAME, K) \
    ENTRY NAME(const uint2* dy, const half_bits* w, uint2* dx, int H, int W, int HO, int WO, int C, int pairs) { \
        spread<K>(dy, w, dx, H, W, HO, WO, C, pairs); \
    }
#define CORRELATE(NAME, K, S) \
    ENTRY NAME(const unsigned* x, const unsigned* dy, float2* parts, int H, int W, int HO, int WO, int C, int length, int segments) { \
        correlate<K, S>(x, dy, parts, H, W, HO, WO, C, length, segments); \
    }

CONVOLVE(forward_3_1, 3, 1, STRIP_1, false)
CONVOLVE(forward_3_2, 3, 2, STRIP_2, false)
CONVOLVE(forward_5_1, 5, 1, STRIP_1, false)
CONVOLVE(forward_5_2, 5, 2, STRIP_2, false)
CONVOLVE(input_3_1, 3, 1, STRIP_1, true)
CONVOLVE(input_5_1, 5, 1, STRIP_1, true)
SPREAD(input_3_2, 3)
SPREAD(input_5_2, 5)
CORRELATE(weight_3_1, 3, 1)
CORRELATE(weight_3_2, 3, 2)
CORRELATE(weight_5_1, 5, 1)
CORRELATE(weight_5_2, 5, 2)

ENTRY weight_sum(const float* parts, half_bits* dw, int blocks, int C, int taps) { add_parts(parts, dw, blocks, C, taps); }
