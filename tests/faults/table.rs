//! The table of what became of each fault in each phase, and what all cells have in common.

use std::future::Future;
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::proxy::Fault;

/// Cells that are worked on at once.
const AT_ONCE: usize = 3;

/// Panics of this process so far, wherever they were, tasks that nobody awaits included.
static PANICS: AtomicUsize = AtomicUsize::new(0);

fn count_panics() {
    let told = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, SeqCst);
        told(info);
    }));
}

/// Fills a table, a row for each fault and a column for each phase, and prints it. Panics if anything anywhere has.
pub(crate) async fn fill<P, F>(title: &str, phases: &[(P, &str)], cell: impl Fn(P, Fault) -> F)
where
    P: Copy,
    F: Future<Output = String> + Send + 'static,
{
    count_panics();
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut work = JoinSet::new();
    for (row, fault) in Fault::ALL.into_iter().enumerate() {
        for (column, (phase, name)) in phases.iter().enumerate() {
            let (turns, cell) = (Arc::clone(&turns), cell(*phase, fault));
            let name = format!("{title}, {}, {name}", fault.name());
            work.spawn(async move {
                let _turn = turns.acquire().await.unwrap();
                let done = tokio::spawn(cell).await;
                let outcome = done.map_err(|_| name);
                (row, column, outcome)
            });
        }
    }
    let mut cells = vec![vec![String::new(); phases.len()]; Fault::ALL.len()];
    let mut failed = Vec::new();
    while let Some(done) = work.join_next().await {
        let (row, column, outcome) = done.unwrap();
        cells[row][column] = outcome.unwrap_or_else(|name| {
            failed.push(name);
            "FAILED".to_owned()
        });
    }
    print(title, phases, &cells);
    assert_eq!(failed, Vec::<String>::new(), "see above");
    assert_eq!(PANICS.load(SeqCst), 0, "something has panicked");
}

fn print<P>(title: &str, phases: &[(P, &str)], cells: &[Vec<String>]) {
    let width = |column: usize, name: &str| {
        let outcomes = cells.iter().map(|row| row[column].len());
        outcomes.chain([name.len()]).max().unwrap_or_default()
    };
    let line = |first: &str, rest: &mut dyn Iterator<Item = &str>| {
        let mut text = format!("{first:<10}");
        for (cell, (column, (_, name))) in rest.zip(phases.iter().enumerate()) {
            let width = width(column, name);
            text.extend(["  ", cell]);
            text.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.len())));
        }
        println!("{}", text.trim_end());
    };
    println!("\n{title}");
    line("", &mut phases.iter().map(|(_, name)| *name));
    for (fault, row) in Fault::ALL.into_iter().zip(cells) {
        line(fault.name(), &mut row.iter().map(String::as_str));
    }
}
