//! CRC32 (IEEE 802.3), fast for short values too.
//!
//! Values and record heads are mostly shorter than 256 bytes. There the crates tried (crc32fast,
//! crc-fast, zlib-rs) spend most of their instructions on finding a way, and a read whose
//! instructions fill the processor's window keeps the next one from beginning. So short buffers
//! are folded 16 bytes at a time by carry-less multiplication, after Gopal and others, "Fast CRC
//! Computation for Generic Polynomials Using PCLMULQDQ Instruction" (Intel, 2009), and everything
//! else is left to crc32fast.

use crc32fast::Hasher;

/// The CRC of `bytes`, going on from the CRC `initial` of what came before; 0 if nothing did.
#[inline]
pub fn crc32(initial: u32, bytes: &[u8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if bytes.len() >= short::FOLD
        && bytes.len() <= short::LONGEST
        && std::arch::is_x86_feature_detected!("pclmulqdq")
    {
        // SAFETY: the processor has the instructions that the function is compiled for.
        return unsafe { short::crc32(initial, bytes) };
    }
    let mut hasher = Hasher::new_with_initial(initial);
    hasher.update(bytes);
    hasher.finalize()
}

/// The CRC of 36 bytes: what every read of a record computes. See [`crc32`].
#[inline]
pub fn crc32_of_36(initial: u32, bytes: &[u8; 36]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("pclmulqdq") {
        // SAFETY: the processor has the instructions that the function is compiled for.
        return unsafe { short::crc32_of_36(initial, bytes) };
    }
    crc32(initial, bytes)
}

#[cfg(target_arch = "x86_64")]
mod short {
    use std::arch::x86_64::{
        __m128i, _mm_and_si128, _mm_clmulepi64_si128, _mm_cvtsi32_si128, _mm_cvtsi128_si32,
        _mm_loadu_si128, _mm_set_epi32, _mm_set_epi64x, _mm_srli_si128, _mm_xor_si128,
    };

    /// Bytes that are folded at a time: no fewer can be.
    pub(super) const FOLD: usize = 16;
    /// From here on crc32fast, which folds 64 bytes at a time, is as quick.
    pub(super) const LONGEST: usize = 256;

    // The paper's constants for the bit-reflected polynomial of IEEE 802.3: powers of x modulo the
    // polynomial, the polynomial itself, and its reciprocal.
    const K3: i64 = 0x1_7519_97d0;
    const K4: i64 = 0x0_ccaa_009e;
    const K5: i64 = 0x1_63cd_6124;
    const POLYNOMIAL: i64 = 0x1_db71_0641;
    const RECIPROCAL: i64 = 0x1_f701_1641;

    /// CRCs of single bytes, for the up to 15 behind the last 16.
    const TABLE: [u32; 256] = table();

    const fn table() -> [u32; 256] {
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            let mut crc = byte as u32;
            let mut bit = 0;
            while bit < 8 {
                crc = (crc >> 1) ^ (0xedb8_8320 * (crc & 1));
                bit += 1;
            }
            table[byte] = crc;
            byte += 1;
        }
        table
    }

    #[inline]
    fn load(bytes: &[u8; FOLD]) -> __m128i {
        // SAFETY: the load reads the 16 bytes of the array, and needs no alignment.
        unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
    }

    /// The state after 16 bytes more.
    #[inline]
    #[target_feature(enable = "pclmulqdq")]
    fn fold(state: __m128i, next: __m128i) -> __m128i {
        let powers = _mm_set_epi64x(K4, K3);
        let low = _mm_clmulepi64_si128::<0x00>(state, powers);
        let high = _mm_clmulepi64_si128::<0x11>(state, powers);
        _mm_xor_si128(_mm_xor_si128(low, high), next)
    }

    /// The CRC of a state, not yet inverted.
    #[inline]
    #[target_feature(enable = "pclmulqdq")]
    fn reduce(state: __m128i) -> u32 {
        let powers = _mm_set_epi64x(K4, K3);
        // 128 bits to 96, and to 64.
        let state = _mm_xor_si128(
            _mm_clmulepi64_si128::<0x10>(state, powers),
            _mm_srli_si128::<8>(state),
        );
        let low_word = _mm_set_epi32(0, 0, 0, !0);
        let state = _mm_xor_si128(
            _mm_clmulepi64_si128::<0x00>(_mm_and_si128(state, low_word), _mm_set_epi64x(0, K5)),
            _mm_srli_si128::<4>(state),
        );
        // Barrett's reduction to 32.
        let barrett = _mm_set_epi64x(RECIPROCAL, POLYNOMIAL);
        let quotient = _mm_clmulepi64_si128::<0x10>(_mm_and_si128(state, low_word), barrett);
        let product = _mm_clmulepi64_si128::<0x00>(_mm_and_si128(quotient, low_word), barrett);
        let remainder = _mm_srli_si128::<4>(_mm_xor_si128(product, state));
        _mm_cvtsi128_si32(remainder) as u32
    }

    /// Zeros before the first byte change nothing, so 36 bytes are taken as 48, and none is left
    /// over at the end.
    #[target_feature(enable = "pclmulqdq")]
    pub(super) fn crc32_of_36(initial: u32, bytes: &[u8; 36]) -> u32 {
        let [a, b, c, d, rest @ ..] = bytes;
        let first = u32::from_le_bytes([*a, *b, *c, *d]) ^ !initial;
        let mut state = _mm_set_epi32(first as i32, 0, 0, 0);
        for block in rest.as_chunks::<FOLD>().0 {
            state = fold(state, load(block));
        }
        !reduce(state)
    }

    /// `bytes` has at least [`FOLD`] bytes.
    #[target_feature(enable = "pclmulqdq")]
    pub(super) fn crc32(initial: u32, bytes: &[u8]) -> u32 {
        let (blocks, rest) = bytes.as_chunks::<FOLD>();
        let Some((first, blocks)) = blocks.split_first() else {
            unreachable!("the caller gives at least one block")
        };
        let mut state = _mm_xor_si128(load(first), _mm_cvtsi32_si128(!initial as i32));
        for block in blocks {
            state = fold(state, load(block));
        }
        let mut crc = reduce(state);
        for &byte in rest {
            crc = (crc >> 8) ^ TABLE[usize::from(crc as u8 ^ byte)];
        }
        !crc
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_crc_of_crc32fast_at_every_length() {
        let bytes: Vec<u8> = (0..700u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8)
            .collect();
        for len in 0..=600 {
            for start in [0, 1, 7, 16, 63] {
                for initial in [0, 1, 0xffff_ffff, 0x1234_5678] {
                    let bytes = &bytes[start..start + len];
                    let mut hasher = Hasher::new_with_initial(initial);
                    hasher.update(bytes);
                    assert_eq!(
                        crc32(initial, bytes),
                        hasher.finalize(),
                        "{len} from {start}"
                    );
                }
            }
        }
        // The check value of the catalogues.
        assert_eq!(crc32(0, b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn thirty_six_bytes_have_the_same() {
        for initial in [0, 1, 0xffff_ffff, 0x1234_5678] {
            for byte in 0..=255u8 {
                let bytes: [u8; 36] = std::array::from_fn(|i| byte.wrapping_mul(i as u8 ^ 0x35));
                assert_eq!(crc32_of_36(initial, &bytes), crc32(initial, &bytes));
            }
        }
    }

    #[test]
    fn parts_make_the_whole() {
        let bytes = [0x5a; 300];
        for cut in 0..=bytes.len() {
            let first = crc32(0, &bytes[..cut]);
            assert_eq!(crc32(first, &bytes[cut..]), crc32(0, &bytes));
        }
    }
}
