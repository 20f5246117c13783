/* The tables that each instruction set's file defines; isa.c picks among them. */
#ifndef TRAINRUN_OPS_ISA_H
#define TRAINRUN_OPS_ISA_H

#include "conv_shape.h"
#include "gemm.h"
#include "kernels.h"

extern const conv_kernels conv_kernels_avx2;
extern const conv_kernels conv_kernels_avx512;
extern const gemm_kernels gemm_kernels_plain;
extern const gemm_kernels gemm_kernels_avx2;
extern const gemm_kernels gemm_kernels_avx512;

extern const tr_kernels tr_kernels_plain;
extern const tr_kernels tr_kernels_avx2;
extern const tr_kernels tr_kernels_avx512;

#endif
