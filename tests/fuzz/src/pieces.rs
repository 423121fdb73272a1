//! A small deterministic source of choices, seeded by the input: how to cut it, what to change in it.

/// xorshift64*: enough to choose with, the same on every machine.
#[derive(Debug, Clone)]
pub(crate) struct Choices(u64);

impl Choices {
    /// Choices that depend on every byte of the input.
    pub(crate) fn of(input: &[u8]) -> Choices {
        let hash = input.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
        });
        Choices(hash | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `limit`, which is not 0.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap_or(0) % limit
    }
}

/// The input in three cuts: whole, byte by byte, and at places that depend on it.
pub(crate) fn cuts(input: &[u8]) -> [Vec<&[u8]>; 3] {
    let mut choices = Choices::of(input);
    let mut pieces = Vec::new();
    let mut rest = input;
    while !rest.is_empty() {
        let longest = if choices.below(4) == 0 { rest.len() } else { rest.len().min(24) };
        let (piece, after) = rest.split_at(1 + choices.below(longest));
        pieces.push(piece);
        rest = after;
    }
    [vec![input], input.chunks(1).collect(), pieces]
}

/// The input's bytes taken from the front, one choice at a time; zeros when there are no more.
#[derive(Debug)]
pub(crate) struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    pub(crate) fn new(input: &'a [u8]) -> Script<'a> {
        Script(input)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub(crate) fn choose<'t, T>(&mut self, from: &'t [T]) -> &'t T {
        &from[usize::from(self.byte()) % from.len()]
    }

    /// The bytes up to a NUL, or all that are left.
    pub(crate) fn text(&mut self) -> &'a [u8] {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(self.0.len());
        let text = &self.0[..end];
        self.0 = self.0.get(end + 1..).unwrap_or_default();
        text
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}

/// Texts as one input of a [`Script`]: joined by NUL.
pub(crate) fn joined(texts: &[&str]) -> Vec<u8> {
    texts.join("\0").into_bytes()
}
