//! A small generator: the same numbers for the same seed, on every machine.

/// The state of the generator (`splitmix64`).
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// A generator that starts from a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `limit`; 0 when that is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit.max(1)).unwrap_or(u64::MAX);
        usize::try_from(self.number() % limit).unwrap_or(0)
    }

    /// A number of 16 bits below `limit`; 0 when that is 0.
    pub fn short(&mut self, limit: u16) -> u16 {
        u16::try_from(self.below(usize::from(limit))).unwrap_or(0)
    }

    /// A number of 32 bits.
    pub fn word(&mut self) -> u32 {
        u32::try_from(self.number() >> 32).unwrap_or(0)
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// One of these. `None` when there are none.
    pub fn one_of<'a, T>(&mut self, choices: &'a [T]) -> Option<&'a T> {
        choices.get(self.below(choices.len()))
    }

    /// A byte, often one at which something changes.
    pub fn byte(&mut self) -> u8 {
        let interesting = [0, 1, 2, 4, 5, 6, 8, 0x10, 0x7f, 0x80, 0xfe, 0xff];
        match self.below(2) {
            0 => self.one_of(&interesting).copied().unwrap_or(0),
            _ => u8::try_from(self.below(256)).unwrap_or(0),
        }
    }

    /// Changes a frame in one to three places, with pieces of another one among the changes. It
    /// does not get shorter than `shortest`.
    pub fn change(&mut self, frame: &mut Vec<u8>, other: &[u8], shortest: usize) {
        for _ in 0..=self.below(3) {
            let at = self.below(frame.len());
            match self.below(8) {
                0 => frame.truncate(at.max(shortest)),
                1 => {
                    let from = self.below(other.len());
                    frame.extend(other.iter().skip(from));
                }
                2 => self.with(frame, at, |_, byte| byte ^ 1),
                3 => {
                    let end = (at + self.below(8)).min(frame.len());
                    for at in at..end {
                        self.with(frame, at, |byte, _| byte);
                    }
                }
                4 => {
                    for (byte, other) in frame.iter_mut().zip(other).skip(at) {
                        *byte = *other;
                    }
                }
                5 => {
                    let byte = self.byte();
                    frame.insert(at, byte);
                }
                6 => {
                    let bit = self.below(8);
                    self.with(frame, at, |_, byte| byte ^ 1 << bit);
                }
                _ => self.with(frame, at, |byte, _| byte),
            }
        }
    }

    /// Replaces the byte at `at` by what `change` makes of a new and of the old one.
    fn with(&mut self, frame: &mut [u8], at: usize, change: impl FnOnce(u8, u8) -> u8) {
        let new = self.byte();
        if let Some(byte) = frame.get_mut(at) {
            *byte = change(new, *byte);
        }
    }
}
