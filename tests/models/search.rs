//! Every state that a model can be in after so many steps, breadth first; each is looked at once.

use super::canon::fingerprint;
use std::collections::HashSet;
use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Instant;

/// A state of a model. Whatever is wrong with it panics.
pub trait Model: Clone {
    type Step: Debug + Clone;
    /// All that can happen now.
    fn steps(&self) -> Vec<Self::Step>;
    fn take(&mut self, step: &Self::Step);
    /// The same for all states that are as good as this one.
    fn canonical(&self) -> String;
    /// What must come of a state in the end, whatever it is.
    fn look_ahead(&self);
}

/// What was seen.
#[derive(Debug, Clone, Copy, Default)]
pub struct Figures {
    pub states: usize,
    pub steps: usize,
    pub depth: usize,
    /// No new state was found at this depth: these are all.
    pub complete: bool,
}

struct Seen<S> {
    parent: usize,
    step: Option<S>,
}

/// Looks at every state within `depth` steps of this one. The history of one that breaks a promise is printed.
pub fn search<M: Model>(name: &str, first: &M, depth: usize) -> Figures {
    let began = Instant::now();
    let mut met = HashSet::from([fingerprint(&first.canonical())]);
    let mut seen: Vec<Seen<M::Step>> = vec![Seen {
        parent: 0,
        step: None,
    }];
    let mut frontier = vec![(0, first.clone())];
    let mut figures = Figures::default();
    while figures.depth < depth && !frontier.is_empty() {
        let mut next = Vec::new();
        for (number, state) in frontier {
            for step in state.steps() {
                figures.steps += 1;
                let taken = catch_unwind(AssertUnwindSafe(|| {
                    let mut after = state.clone();
                    after.take(&step);
                    let is_new = met.insert(fingerprint(&after.canonical()));
                    if is_new {
                        after.look_ahead();
                    }
                    is_new.then_some(after)
                }));
                match taken {
                    Ok(None) => {}
                    Ok(Some(after)) => {
                        let parent = number;
                        let step = Some(step);
                        seen.push(Seen { parent, step });
                        next.push((seen.len() - 1, after));
                    }
                    Err(panic) => {
                        tell(name, &seen, number, &step);
                        resume_unwind(panic);
                    }
                }
            }
        }
        frontier = next;
        figures.depth += 1;
    }
    figures.states = seen.len();
    figures.complete = frontier.is_empty();
    println!(
        "{name}: {figures:?}, {} new at the last depth, {} ms",
        frontier.len(),
        began.elapsed().as_millis()
    );
    figures
}

/// The shortest history to the state that breaks a promise.
fn tell<S: Debug>(name: &str, seen: &[Seen<S>], last: usize, step: &S) {
    let mut history = vec![format!("{step:?}")];
    let mut at = last;
    while let Some(step) = &seen[at].step {
        history.push(format!("{step:?}"));
        at = seen[at].parent;
    }
    history.reverse();
    println!("{name}: a promise is broken after {} steps:", history.len());
    for step in history {
        println!("  {step}");
    }
}
