//! Ranges of ids.

use std::collections::BTreeMap;

/// Ranges that lie apart from each other and are not adjacent: their last ids by their first ones.
#[derive(Debug, Default)]
pub(super) struct Ranges(BTreeMap<u32, u32>);

impl Ranges {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds all ids `from..=to`. The ranges that it meets or touches become one with it.
    pub(super) fn add(&mut self, mut from: u32, mut to: u32) {
        while let Some((&start, &end)) = self
            .0
            .range(..=to.saturating_add(1))
            .next_back()
            .filter(|&(_, &end)| end >= from.saturating_sub(1))
        {
            self.0.remove(&start);
            from = from.min(start);
            to = to.max(end);
        }
        self.0.insert(from, to);
    }

    /// Takes one id out.
    pub(super) fn remove(&mut self, id: u32) {
        let Some((from, to)) = self.around(id) else {
            return;
        };
        self.0.remove(&from);
        if from < id {
            self.0.insert(from, id - 1);
        }
        if id < to {
            self.0.insert(id + 1, to);
        }
    }

    /// The range that an id is in: its first and last one.
    pub(super) fn around(&self, id: u32) -> Option<(u32, u32)> {
        let (&from, &to) = self.0.range(..=id).next_back()?;
        (id <= to).then_some((from, to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(ranges: &Ranges) -> Vec<(u32, u32)> {
        ranges.0.iter().map(|(&from, &to)| (from, to)).collect()
    }

    #[test]
    fn ranges_that_touch_become_one() {
        let mut ranges = Ranges::default();
        for (from, to) in [
            (10, 12),
            (20, 25),
            (13, 13),
            (0, 3),
            (24, 30),
            (u32::MAX, u32::MAX),
        ] {
            ranges.add(from, to);
        }
        let last = (u32::MAX, u32::MAX);
        assert_eq!(all(&ranges), [(0, 3), (10, 13), (20, 30), last]);
        ranges.add(2, 40);
        assert_eq!(all(&ranges), [(0, 40), last]);
        assert_eq!(ranges.around(40), Some((0, 40)));
        assert_eq!(ranges.around(41), None);
        assert_eq!(ranges.around(u32::MAX), Some(last));
        for id in [0, 40, 20, 41, u32::MAX] {
            ranges.remove(id);
            assert_eq!(ranges.around(id), None);
        }
        assert_eq!(all(&ranges), [(1, 19), (21, 39)]);
    }
}
