//! Ranges of ids, each with something about it.

use std::collections::BTreeMap;

/// Ranges that lie apart from each other and are not adjacent, by their first ids.
#[derive(Debug, Default)]
pub(super) struct Ranges<T>(BTreeMap<u32, (u32, T)>);

impl<T: Copy> Ranges<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds all ids `from..=to`. The ranges that it meets or touches become one with it, and `join` makes
    /// one of what is said of them.
    pub(super) fn add(
        &mut self,
        mut from: u32,
        mut to: u32,
        mut what: T,
        join: impl Fn(T, T) -> T,
    ) {
        while let Some((&start, &(end, other))) = self
            .0
            .range(..=to.saturating_add(1))
            .next_back()
            .filter(|(_, (end, _))| *end >= from.saturating_sub(1))
        {
            self.0.remove(&start);
            from = from.min(start);
            to = to.max(end);
            what = join(what, other);
        }
        self.0.insert(from, (to, what));
    }

    /// Takes one id out.
    pub(super) fn remove(&mut self, id: u32) {
        let Some((from, to, what)) = self.around(id) else {
            return;
        };
        self.0.remove(&from);
        if from < id {
            self.0.insert(from, (id - 1, what));
        }
        if id < to {
            self.0.insert(id + 1, (to, what));
        }
    }

    /// The range that an id is in: its first and last one, and what is said of it.
    pub(super) fn around(&self, id: u32) -> Option<(u32, u32, T)> {
        let (&from, &(to, what)) = self.0.range(..=id).next_back()?;
        (id <= to).then_some((from, to, what))
    }

    /// What is said of the ranges.
    pub(super) fn values(&self) -> impl Iterator<Item = T> {
        self.0.values().map(|&(_, what)| what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(ranges: &Ranges<bool>) -> Vec<(u32, u32, bool)> {
        let ranges = ranges.0.iter();
        ranges
            .map(|(&from, &(to, what))| (from, to, what))
            .collect()
    }

    #[test]
    fn ranges_that_touch_become_one() {
        let mut ranges = Ranges::default();
        let join = |one, other| one | other;
        for (from, to) in [
            (10, 12),
            (20, 25),
            (13, 13),
            (0, 3),
            (24, 30),
            (u32::MAX, u32::MAX),
        ] {
            ranges.add(from, to, false, join);
        }
        let last = (u32::MAX, u32::MAX, false);
        assert_eq!(
            all(&ranges),
            [(0, 3, false), (10, 13, false), (20, 30, false), last]
        );
        ranges.add(2, 40, true, join);
        assert_eq!(all(&ranges), [(0, 40, true), last]);
        assert_eq!(ranges.around(40), Some((0, 40, true)));
        assert_eq!(ranges.around(41), None);
        assert_eq!(ranges.around(u32::MAX), Some(last));
        for id in [0, 40, 20, 41, u32::MAX] {
            ranges.remove(id);
            assert_eq!(ranges.around(id), None);
        }
        assert_eq!(all(&ranges), [(1, 19, true), (21, 39, true)]);
    }
}
