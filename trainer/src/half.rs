//! Numbers of 16 bits to and from f32: bf16 and IEEE's half precision, as model files hold them. Bits in, bits out.
//!
//! To f32 is exact. From f32 rounds to the nearest, of two as near to the even one; what is too large becomes infinite.

/// A bf16 as f32: the upper half of its bits.
pub(crate) fn from_bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The nearest bf16. A value that is not a number stays one.
pub(crate) fn to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    // Half of the last place that stays, less one where that place is even: what is beyond carries into it.
    ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}

/// A half as f32.
pub(crate) fn from_f16(bits: u16) -> f32 {
    /// 2¹¹²: what an f32's exponent counts from, less what a half's does.
    const REBIAS: f32 = f32::from_bits((127 + 112) << 23);
    let (sign, magnitude) = (u32::from(bits & 0x8000) << 16, u32::from(bits & 0x7fff));
    let value = match magnitude {
        0..0x7c00 => (f32::from_bits(magnitude << 13) * REBIAS).to_bits(),
        _ => 0x7f80_0000 | (magnitude & 0x3ff) << 13,
    };
    f32::from_bits(sign | value)
}

/// The nearest half.
pub(crate) fn to_f16(value: f32) -> u16 {
    /// 2¹⁶, beyond every finite half: below it, rounding alone carries into infinity.
    const BEYOND: u32 = (127 + 16) << 23;
    /// 2⁻¹⁴, the least half that is normal.
    const NORMAL: u32 = (127 - 14) << 23;
    let sign = (value.to_bits() >> 16) as u16 & 0x8000;
    let magnitude = value.to_bits() & 0x7fff_ffff;
    let half = match magnitude {
        // The last place of ½ is 2⁻²⁴, the least half: the addition rounds.
        0..NORMAL => (f32::from_bits(magnitude) + 0.5).to_bits() - 0.5f32.to_bits(),
        NORMAL..BEYOND => (magnitude + 0xfff + ((magnitude >> 13) & 1) - (112 << 23)) >> 13,
        _ if value.is_nan() => 0x7e00,
        _ => 0x7c00,
    };
    sign | half as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_16_bits_comes_back_from_f32() {
        for bits in 0..=u16::MAX {
            let (brain, half) = (from_bf16(bits), from_f16(bits));
            assert!(to_bf16(brain) == bits || brain.is_nan() && from_bf16(to_bf16(brain)).is_nan(), "{bits:#x}");
            assert!(to_f16(half) == bits || half.is_nan() && from_f16(to_f16(half)).is_nan(), "{bits:#x}");
        }
        assert_eq!([0x3c00, 0x0001, 0x7bff, 0xc000].map(from_f16), [1.0, 2f32.powi(-24), 65504.0, -2.0]);
        assert_eq!([0x3f80, 0xc000].map(from_bf16), [1.0, -2.0]);
    }

    /// Between each two neighbours: just below the middle, the middle, just above it.
    #[test]
    fn what_lies_between_goes_to_the_nearest_and_the_middle_to_the_even_one() {
        let check = |from: fn(u16) -> f32, to: fn(f32) -> u16, last: u16| {
            for low in 0..last {
                let middle = ((f64::from(from(low)) + f64::from(from(low + 1))) / 2.0) as f32;
                let even = low + (low & 1);
                assert_eq!(to(middle), even, "{low:#x}");
                assert_eq!(to(middle.next_down()), low);
                assert_eq!(to(middle.next_up()), low + 1);
                assert_eq!(to(-middle), even | 0x8000);
            }
        };
        check(from_f16, to_f16, 0x7bff);
        check(from_bf16, to_bf16, 0x7f7f);
        assert_eq!((to_f16(65519.9), to_f16(65520.0)), (0x7bff, 0x7c00), "the next step would be 65536");
        assert_eq!((to_f16(1e30), to_f16(-1e30), to_bf16(f32::MAX)), (0x7c00, 0xfc00, 0x7f80));
    }
}
