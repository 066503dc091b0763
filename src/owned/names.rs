//! Names of devices that were removed, kept until nobody can see them any more.
//!
//! The manager's own code hands out names as references: in errors, in a walk. A caller that gets one has begun a call of the
//! owned manager, and makes a `String` of the name before the call ends. So a name can be freed when every call has ended that
//! was under way when its device was removed.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem;

use crate::sync::Mutex;

/// Calls and retired names, by period. There are two periods, the present one and the one before.
///
/// A new period begins when every call of the one before has ended. A name that is retired in a period is seen by calls of that
/// period and of the one before, if at all. So it can be freed when a period ends whose calls have all ended and in which it
/// was retired.
pub(super) struct Names(Mutex<Periods>);

struct Periods {
    /// Whether the second is the present one.
    second: bool,
    periods: [Period; 2],
}

struct Period {
    /// How many calls that began in it are under way.
    calls: usize,
    retired: Vec<Arc<str>>,
}

impl Periods {
    fn get(&mut self, second: bool) -> &mut Period {
        let [first, other] = &mut self.periods;
        if second { other } else { first }
    }

    /// Begins a new period, if every call of the one before has ended. Returns the names that were retired in that one.
    fn turn(&mut self) -> Vec<Arc<str>> {
        let next = !self.second;
        if self.get(next).calls != 0 {
            return Vec::new();
        }
        self.second = next;
        mem::take(&mut self.get(next).retired)
    }
}

/// A call that is under way, until it is dropped.
pub(super) struct Call<'a> {
    names: &'a Names,
    second: bool,
}

impl Names {
    pub(super) fn new() -> Self {
        let period = || Period { calls: 0, retired: Vec::new() };
        Self(Mutex::new(Periods { second: false, periods: [period(), period()] }))
    }

    /// Begins a call, which may see names.
    pub(super) fn call(&self) -> Call<'_> {
        let mut periods = self.0.lock();
        let second = periods.second;
        let period = periods.get(second);
        period.calls = period.calls.saturating_add(1);
        Call { names: self, second }
    }
}

impl Call<'_> {
    /// Frees a name when no call can see it any more. Calls that begin from now on cannot.
    pub(super) fn retire(&self, name: Arc<str>) {
        let mut periods = self.names.0.lock();
        let second = periods.second;
        let retired = &mut periods.get(second).retired;
        match retired.try_reserve(1) {
            Ok(()) => retired.push(name),
            // Where the heap has no room to note it, it stays.
            Err(_) => mem::forget(name),
        }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let mut periods = self.names.0.lock();
        let period = periods.get(self.second);
        period.calls = period.calls.saturating_sub(1);
        // Twice: where no call is under way, both periods end.
        let freed = [periods.turn(), periods.turn()];
        drop(periods);
        drop(freed);
    }
}

#[cfg(all(test, not(vm_device_loom)))]
mod tests {
    use super::*;

    /// C42.
    #[test]
    fn a_name_is_kept_until_every_call_has_ended_that_may_see_it() {
        let names = Names::new();
        let (mut random, steps) = (1_u64, if cfg!(miri) { 500 } else { 50_000 });
        // The calls under way, with the step at which each began; the names, with the step at which each was retired.
        let (mut calls, mut retired) = (Vec::<(u64, Call<'_>)>::new(), Vec::<(u64, Arc<str>)>::new());
        let is_held = |name: &Arc<str>| Arc::strong_count(name) > 1;
        for step in 0..steps {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let choice = (random >> 33) as usize;
            match choice % 3 {
                0 if calls.len() < 6 => calls.push((step, names.call())),
                1 if !calls.is_empty() => drop(calls.swap_remove(choice / 3 % calls.len())),
                2 if !calls.is_empty() => {
                    let name: Arc<str> = "name".into();
                    calls[choice / 3 % calls.len()].1.retire(Arc::clone(&name));
                    retired.push((step, name));
                }
                _ => {}
            }
            for (since, name) in &retired {
                let is_seen = calls.iter().any(|(began, _)| began < since);
                assert!(!is_seen || is_held(name), "a call may see the name");
            }
            if calls.is_empty() {
                assert!(!retired.iter().any(|(_, name)| is_held(name)), "no call is under way");
            }
            retired.retain(|(_, name)| is_held(name));
        }
        // Calls that follow one another without a gap do not keep a name.
        let name: Arc<str> = "name".into();
        calls.clear();
        let mut call = names.call();
        call.retire(Arc::clone(&name));
        for _ in 0..2 {
            let next = names.call();
            drop(core::mem::replace(&mut call, next));
        }
        assert!(!is_held(&name));
    }
}
