//! [`Plan`]: which bytes of a file go to which part of its multipart upload. Pure arithmetic.
//!
//! A file is its head, known only at the end, and its body. Parts 2, 3, … hold the body from [`HELD`] on and go up while the
//! stream runs; part 1 is the head and the first [`HELD`] bytes of the body, which are held back for it, because no part but the last may
//! be shorter. A file that ends before part 2 is full is stored in one request.

/// Least bytes of a part that is not the last, by the protocol, and so what of the body is held back for the head's part.
pub(crate) const HELD: u64 = 5 << 20;
/// Most parts of one upload, by the protocol.
const MAX_PARTS: u32 = 10_000;
/// Parts grow by one part size each so many, so that the last of them fits what a day brings without the first being long.
const GROWS_EACH: u32 = 1_000;
/// A file is cut at the next opportunity when so few parts are left.
const RESERVE: u32 = 16;

/// Lengths of parts; the same for a file's whole life, because its state tells of parts by their number alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    part_size: u64,
}

impl Plan {
    /// Body parts of `part_size` bytes at first, at least [`HELD`].
    pub(crate) fn new(part_size: u64) -> Self {
        Self {
            part_size: part_size.max(HELD),
        }
    }

    /// No file that is shorter has parts.
    pub(crate) const SHORTEST_IN_PARTS: u64 = 2 * HELD;

    /// Bytes of body part `index`, from 0.
    pub(crate) fn part_len(self, index: u32) -> u64 {
        self.part_size * u64::from(index / GROWS_EACH + 1)
    }

    /// Where in the body part `index` begins.
    pub(crate) fn part_start(self, index: u32) -> u64 {
        // Before it are `full` steps of GROWS_EACH parts, each one part size longer than the step before, and a rest of its own step.
        let (full, rest) = (u64::from(index / GROWS_EACH), u64::from(index % GROWS_EACH));
        let steps = full * (full + 1) / 2 * u64::from(GROWS_EACH);
        HELD + self.part_size * (steps + rest * (full + 1))
    }

    /// Number, from 0, that body part `index` has in the upload: the head's part is before it.
    pub(crate) fn upload_index(index: u32) -> u32 {
        index + 1
    }

    /// Body bytes beyond which the next part after `parts` whole ones is whole.
    pub(crate) fn part_end(self, parts: u32) -> u64 {
        self.part_start(parts) + self.part_len(parts)
    }

    /// True where a file with so many whole parts should end at the next opportunity.
    pub(crate) fn is_nearly_full(parts: u32) -> bool {
        parts >= MAX_PARTS - RESERVE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_follow_each_other_without_hole() {
        for part_size in [5 << 20, 8 << 20, 64 << 20] {
            let plan = Plan::new(part_size);
            assert_eq!(plan.part_start(0), HELD);
            for index in 0..MAX_PARTS {
                assert_eq!(
                    plan.part_start(index) + plan.part_len(index),
                    plan.part_start(index + 1)
                );
                assert_eq!(plan.part_end(index), plan.part_start(index + 1));
                assert!(plan.part_len(index) >= HELD);
            }
        }
    }

    #[test]
    fn a_day_at_20_megabits_fits_the_shortest_parts() {
        let day = 24 * 3600 * 20_000_000 / 8;
        let plan = Plan::new(5 << 20);
        let parts = (0..MAX_PARTS)
            .find(|&n| plan.part_start(n) >= day)
            .expect("enough parts");
        assert!(!Plan::is_nearly_full(parts), "{parts}");
        // And no part outgrows what a request may carry, 5 GiB, nor a file 5 TiB.
        let large = Plan::new(64 << 20);
        assert!(large.part_len(MAX_PARTS) < 5 << 30);
        assert!(large.part_start(MAX_PARTS) < 5 << 40);
    }
}
