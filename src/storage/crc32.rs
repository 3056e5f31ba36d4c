//! CRC32 (IEEE 802.3), fast for short values too.
//!
//! Values and record heads are mostly shorter than 256 bytes. There the crates tried (crc32fast,
//! crc-fast, zlib-rs) spend most of their instructions on finding a way: for 100 bytes crc32fast
//! takes 240 of them. So short buffers are folded 16 bytes at a time by carry-less multiplication,
//! after Gopal and others, "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ
//! Instruction" (Intel, 2009), whole values 64 bytes at a time where the processor can do that, and
//! a record's two checksums are brought to their end side by side. Everything else is left to
//! crc32fast. Instructions count twice here: a read of a record in memory waits for the memory of the
//! next one too, as long as both fit the processor's window (docs/ARCHITECTURE.md, 8).

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

/// The CRC of a whole value.
#[inline(always)]
pub fn crc32_of_value(value: &[u8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if wide::fits(value.len()) && wide::is_available() {
        // SAFETY: the processor has the instructions that the function is compiled for.
        return unsafe { wide::crc32(value) };
    }
    crc32(0, value)
}

/// [`crc32_of_36`] and [`crc32_of_value`] at once, of a record that is read.
#[inline(always)]
pub fn crc32s_of_record(initial: u32, head: &[u8; 36], value: &[u8]) -> (u32, u32) {
    #[cfg(target_arch = "x86_64")]
    if wide::fits(value.len()) && wide::is_available() {
        // SAFETY: the processor has the instructions that the function is compiled for.
        return unsafe { wide::crc32s_of_record(initial, head, value) };
    }
    one_by_one(initial, head, value)
}

/// Out of line, so that it takes no registers from who goes the other way.
#[inline(never)]
fn one_by_one(initial: u32, head: &[u8; 36], value: &[u8]) -> (u32, u32) {
    (crc32_of_36(initial, head), crc32_of_value(value))
}

/// The CRC of 36 bytes: what every read of a record computes. See [`crc32`].
#[inline(always)]
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
    pub(super) const K4: i64 = 0x0_ccaa_009e;
    pub(super) const K5: i64 = 0x1_63cd_6124;
    pub(super) const POLYNOMIAL: i64 = 0x1_db71_0641;
    pub(super) const RECIPROCAL: i64 = 0x1_f701_1641;

    /// CRCs of single bytes, for the up to 15 behind the last 16.
    pub(super) const TABLE: [u32; 256] = table();

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
    pub(super) fn reduce(state: __m128i) -> u32 {
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

    #[target_feature(enable = "pclmulqdq")]
    pub(super) fn crc32_of_36(initial: u32, bytes: &[u8; 36]) -> u32 {
        !reduce(state_of_36(initial, bytes))
    }

    /// Zeros before the first byte change nothing, so 36 bytes are taken as 48, and none is left
    /// over at the end.
    #[inline]
    #[target_feature(enable = "pclmulqdq")]
    pub(super) fn state_of_36(initial: u32, bytes: &[u8; 36]) -> __m128i {
        let [a, b, c, d, rest @ ..] = bytes;
        let first = u32::from_le_bytes([*a, *b, *c, *d]) ^ !initial;
        let mut state = _mm_set_epi32(first as i32, 0, 0, 0);
        for block in rest.as_chunks::<FOLD>().0 {
            state = fold(state, load(block));
        }
        state
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

/// The same, 64 bytes at a time.
#[cfg(target_arch = "x86_64")]
mod wide {
    use std::arch::x86_64::{
        __m128i, __m512i, _mm_xor_si128, _mm256_and_si256, _mm256_castsi256_si128,
        _mm256_clmulepi64_epi128, _mm256_extract_epi32, _mm256_extracti128_si256,
        _mm256_maskz_set1_epi32, _mm256_set_m128i, _mm256_set1_epi64x, _mm256_srli_si256,
        _mm256_xor_si256, _mm512_castsi512_si256, _mm512_clmulepi64_epi128,
        _mm512_extracti32x4_epi32, _mm512_extracti64x4_epi64, _mm512_loadu_si512,
        _mm512_maskz_loadu_epi8, _mm512_set_epi64, _mm512_set1_epi64, _mm512_unpacklo_epi64,
        _mm512_xor_si512,
    };

    use std::hint::assert_unchecked;
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::short::{K4, K5, POLYNOMIAL, RECIPROCAL, TABLE, reduce, state_of_36};

    const FOLD: usize = 64;
    const LONGEST: usize = 512;

    /// Whether a buffer of this length is taken.
    #[inline(always)]
    pub(super) fn fits(len: usize) -> bool {
        // One comparison: 0 wraps around.
        len.wrapping_sub(1) < LONGEST
    }

    /// CRCs of so many zeros. A CRC begins with ones in the first four bytes; to put them in at the
    /// end, as what they make of zeros, takes one instruction wherever those bytes lie.
    static ZEROS: [u32; LONGEST + 1] = zeros();

    const fn zeros() -> [u32; LONGEST + 1] {
        let mut crcs = [0; LONGEST + 1];
        let mut state = !0u32;
        let mut len = 1;
        while len <= LONGEST {
            state = (state >> 8) ^ TABLE[state as u8 as usize];
            crcs[len] = !state;
            len += 1;
        }
        crcs
    }

    /// `x` to the power of `n` modulo the polynomial, bit-reflected, as carry-less multiplication
    /// of reflected numbers wants it.
    const fn power(n: u32) -> i64 {
        let mut power = 1u32;
        let mut i = 0;
        while i < n {
            power = (power << 1) ^ (0x04c1_1db7 * (power >> 31));
            i += 1;
        }
        (power.reverse_bits() as i64) << 1
    }

    /// Two 64-bit halves of 128 bits that lie `distance` bits before those that they are folded
    /// into: the multipliers of the low and of the high one.
    const fn multipliers(distance: u32) -> (i64, i64) {
        (power(distance + 32), power(distance - 32))
    }

    /// Whether the processor has what the functions here are compiled for. One byte is quicker to
    /// look at than std's answers for each of the features.
    #[inline(always)]
    pub(super) fn is_available() -> bool {
        const UNKNOWN: u8 = 0;
        const NO: u8 = 1;
        const YES: u8 = 2;
        static AVAILABLE: AtomicU8 = AtomicU8::new(UNKNOWN);
        #[cold]
        fn detect() -> bool {
            let available = std::arch::is_x86_feature_detected!("avx512bw")
                && std::arch::is_x86_feature_detected!("avx512vl")
                && std::arch::is_x86_feature_detected!("vpclmulqdq");
            AVAILABLE.store(if available { YES } else { NO }, Ordering::Relaxed);
            available
        }
        let known = AVAILABLE.load(Ordering::Relaxed);
        known == YES || (known == UNKNOWN && detect())
    }

    /// # Safety
    /// `bytes` has a length that [`fits`].
    #[target_feature(enable = "avx512f,avx512bw,vpclmulqdq,pclmulqdq")]
    pub(super) unsafe fn crc32(bytes: &[u8]) -> u32 {
        // SAFETY: by the caller's word.
        unsafe { assert_unchecked(fits(bytes.len())) };
        reduce(state(bytes)) ^ ZEROS[bytes.len()]
    }

    /// # Safety
    /// `value` has a length that [`fits`].
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,vpclmulqdq,pclmulqdq")]
    pub(super) unsafe fn crc32s_of_record(
        initial: u32,
        head: &[u8; 36],
        value: &[u8],
    ) -> (u32, u32) {
        // SAFETY: by the caller's word.
        unsafe { assert_unchecked(fits(value.len())) };
        let begin = ZEROS[value.len()];
        let (head, value) = reduce_both(state_of_36(initial, head), state(value));
        (!head, value ^ begin)
    }

    /// As `short::reduce`, of two states side by side.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vl,vpclmulqdq")]
    fn reduce_both(low: __m128i, high: __m128i) -> (u32, u32) {
        let states = _mm256_set_m128i(high, low);
        let low_words = _mm256_maskz_set1_epi32(0b0001_0001, -1);
        let states = _mm256_xor_si256(
            _mm256_clmulepi64_epi128::<0x00>(states, _mm256_set1_epi64x(K4)),
            _mm256_srli_si256::<8>(states),
        );
        let states = _mm256_xor_si256(
            _mm256_clmulepi64_epi128::<0x00>(
                _mm256_and_si256(states, low_words),
                _mm256_set1_epi64x(K5),
            ),
            _mm256_srli_si256::<4>(states),
        );
        let quotients = _mm256_clmulepi64_epi128::<0x00>(
            _mm256_and_si256(states, low_words),
            _mm256_set1_epi64x(RECIPROCAL),
        );
        let products = _mm256_clmulepi64_epi128::<0x00>(
            _mm256_and_si256(quotients, low_words),
            _mm256_set1_epi64x(POLYNOMIAL),
        );
        let remainders = _mm256_xor_si256(products, states);
        (
            _mm256_extract_epi32::<1>(remainders) as u32,
            _mm256_extract_epi32::<5>(remainders) as u32,
        )
    }

    /// What is left of `bytes`, whose length [`fits`], before the reduction. Zeros are thought before
    /// the first byte, to whole folds.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,vpclmulqdq,pclmulqdq")]
    fn state(bytes: &[u8]) -> __m128i {
        let padding = bytes.len().wrapping_neg() % FOLD;
        // SAFETY: there are as many bytes, because there is at least one: a multiple of `FOLD` with the
        // padding.
        let (first, rest) = unsafe { bytes.split_at_unchecked(FOLD - padding) };
        // SAFETY: the load reads the bytes of `first` and nothing before them: the mask leaves out
        // the padding, where the address may be anything.
        let mut state = unsafe {
            _mm512_maskz_loadu_epi8(!0 << padding, first.as_ptr().wrapping_sub(padding).cast())
        };
        const ONE_FOLD: (i64, i64) = multipliers(512);
        let by_fold =
            _mm512_unpacklo_epi64(_mm512_set1_epi64(ONE_FOLD.0), _mm512_set1_epi64(ONE_FOLD.1));
        let fold = |state: __m512i, block: &[u8; FOLD]| {
            // SAFETY: the load reads the 64 bytes of the array, and needs no alignment.
            let next = unsafe { _mm512_loadu_si512(block.as_ptr().cast()) };
            _mm512_xor_si512(multiply(state, by_fold), next)
        };
        // The first one by itself: short values have no more.
        if let Some((block, blocks)) = rest.as_chunks::<FOLD>().0.split_first() {
            state = blocks.iter().fold(fold(state, block), fold);
        }
        // The first three lanes are folded into the last.
        const LANES: [(i64, i64); 3] = [multipliers(384), multipliers(256), multipliers(128)];
        let by_lane = _mm512_set_epi64(
            0, 0, LANES[2].1, LANES[2].0, LANES[1].1, LANES[1].0, LANES[0].1, LANES[0].0,
        );
        let lanes = multiply(state, by_lane);
        let pairs = _mm256_xor_si256(
            _mm512_castsi512_si256(lanes),
            _mm512_extracti64x4_epi64::<1>(lanes),
        );
        let lane = _mm_xor_si128(
            _mm256_castsi256_si128(pairs),
            _mm256_extracti128_si256::<1>(pairs),
        );
        _mm_xor_si128(lane, _mm512_extracti32x4_epi32::<3>(state))
    }

    /// Each lane's halves times those of `by`, added up.
    #[inline]
    #[target_feature(enable = "avx512f,vpclmulqdq")]
    fn multiply(lanes: __m512i, by: __m512i) -> __m512i {
        let low = _mm512_clmulepi64_epi128::<0x00>(lanes, by);
        let high = _mm512_clmulepi64_epi128::<0x11>(lanes, by);
        _mm512_xor_si512(low, high)
    }

    #[cfg(test)]
    mod tests {
        #[test]
        fn the_powers_are_those_of_the_paper() {
            assert_eq!(super::multipliers(512), (0x1_5444_2bd4, 0x1_c6e4_1596));
            assert_eq!(super::multipliers(128), (0x1_7519_97d0, 0x0_ccaa_009e));
        }
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
                    let expected = hasher.finalize();
                    assert_eq!(crc32(initial, bytes), expected, "{len} from {start}");
                    if initial == 0 {
                        assert_eq!(crc32_of_value(bytes), expected, "{len} from {start}");
                    }
                }
            }
        }
        // The check value of the catalogues.
        assert_eq!(crc32(0, b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn both_of_a_record_are_each_by_itself() {
        let bytes: [u8; 700] =
            std::array::from_fn(|i| ((i as u32).wrapping_mul(2_654_435_761) >> 13) as u8);
        for len in 0..=600 {
            let (head, value) = bytes[len % 7..].split_first_chunk().unwrap();
            let value = &value[..len];
            let initial = len as u32 * 77_777;
            assert_eq!(
                crc32s_of_record(initial, head, value),
                (crc32(initial, head), crc32(0, value)),
                "{len}"
            );
        }
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
