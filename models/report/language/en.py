"""The texts of a report in English."""

from typing import Final

from models.collapse.measures import IMAGE_SIDE, TEXT_SIDE

_MEASURES = {
    f"measure.{measure.key}.{field}": text
    for measure in (*TEXT_SIDE, *IMAGE_SIDE)
    for field, text in (("name", measure.name), ("meaning", measure.meaning))
}

TEXTS: Final[dict[str, str]] = {
    # How numbers, dates and lists are written.
    "number.percent": "{value}\N{NO-BREAK SPACE}%",
    "number.interval": "{low}\N{EN DASH}{high}\N{NO-BREAK SPACE}%",
    "number.thousand": "{value} ({low}\N{EN DASH}{high})",
    "number.moment": "<\N{NO-BREAK SPACE}0.1\N{NO-BREAK SPACE}s",
    "number.seconds": "{value}\N{NO-BREAK SPACE}s",
    "number.minutes": "{minutes}\N{NO-BREAK SPACE}min\N{NO-BREAK SPACE}{seconds}\N{NO-BREAK SPACE}s",
    "number.date": "{year}-{month}-{day}",
    "number.time": "{date} {time} UTC",
    "list.between": ", ",
    "list.last": "{most} and {last}",
    "list.sentence": " ",
    "count.photograph.one": "{n}\N{NO-BREAK SPACE}photograph",
    "count.photograph.other": "{n}\N{NO-BREAK SPACE}photographs",
    "count.class.one": "{n}\N{NO-BREAK SPACE}class",
    "count.class.other": "{n}\N{NO-BREAK SPACE}classes",
    "count.step.one": "{n}\N{NO-BREAK SPACE}step",
    "count.step.other": "{n}\N{NO-BREAK SPACE}steps",
    "count.token.one": "{n}\N{NO-BREAK SPACE}context token",
    "count.token.other": "{n}\N{NO-BREAK SPACE}context tokens",
    "count.trial.one": "{n}\N{NO-BREAK SPACE}recipe",
    "count.trial.other": "{n}\N{NO-BREAK SPACE}recipes",
    # The page.
    "page.title": "{name}: tuning report",
    "page.eyebrow": "Shotline tuning report · {made}",
    "page.told_apart": "{n} classes told apart",
    "role.ok": "ok",
    "role.ng": "ng",
    "role.other": "other",
    "tuned": "Tuned",
    "zero_shot": "Zero-shot",
    "linear_probe": "Linear probe",
    # What was tuned on what, and how good it is.
    "lead": "Prompts for {classes} were tuned on {photographs} ({each} of each class) with the"
    " backbone {backbone} frozen.",
    "lead.range": "{least} to {most}",
    "basis.test": "The result was measured on {photographs} sent to the tuned model afterwards; none"
    " of them was used for tuning.",
    "basis.holdout": "The result was measured on {photographs} that were held out; none of them was"
    " used for tuning.",
    "basis.folds": "There were no held-out photographs, so the result was measured by"
    " cross-validation: each of the {photographs} was decided by prompts tuned without it.",
    "headline.macro": "mean accuracy of the classes",
    "headline.interval": "95 % interval {interval}",
    "headline.track": "{name}: {value}, 95 % interval {interval}",
    "headline.zero_shot": "Zero-shot is the same backbone on the same photographs with hand-written"
    " prompts, before tuning: {points} points by tuning.",
    "headline.probe": "The linear probe is logistic regression on the same image features, measured"
    " on the same photographs: {points} points between it and the tuned model.",
    "headline.lines": "Lines show 95 % intervals, the dashed mark is guessing ({chance}).",
    "headline.weakest": "Weakest class",
    "headline.measured": "{interval} on {photographs}",
    "headline.of": "{count} of {total}",
    "headline.ece": "Are its probabilities right?",
    "headline.ece.value": "{points} points off",
    "headline.ece.average": "on average",
    "headline.ece.note": "expected calibration error, 15 bins",
    "headline.decided": "Decided by itself",
    "headline.decided.note": "{interval}; the rest is left to a person",
    "headline.tuning": "Tuning took",
    "headline.tuning.all": "{steps}, {tokens} for all classes",
    "headline.tuning.each": "{steps}, {tokens} for each class",
    "headline.prediction": "A prediction takes",
    "headline.prediction.note": "median, request to decision",
    "headline.ms": "{value}\N{NO-BREAK SPACE}ms",
    "headline.cautions": "Read with care",
    "outcome.note": "{interval}; {meaning}",
    "outcome.miss": "Defects let through",
    "outcome.miss.meaning": "ng photographs decided ok",
    "outcome.alarm": "Good parts stopped",
    "outcome.alarm.meaning": "ok photographs decided ng",
    "caution.no_gain": "Tuning did not raise the accuracy on these photographs.",
    "caution.overlap": "The intervals of tuned and zero-shot overlap: measure on more photographs"
    " before relying on the difference.",
    "caution.probe": "A linear probe was more accurate on these photographs ({probe} against"
    " {tuned}): the texts do not help here, or there are enough photographs without them.",
    "caution.few.one": "{n}\N{NO-BREAK SPACE}class was measured on fewer than {limit} photographs (the"
    " fewest: {least}); read the intervals, not the figures alone.",
    "caution.few.other": "{n}\N{NO-BREAK SPACE}classes were measured on fewer than {limit}"
    " photographs (the fewest: {least}); read the intervals, not the figures alone.",
    "caution.few.all": "Every class was measured on fewer than {limit} photographs (the fewest:"
    " {least}); read the intervals, not the figures alone.",
    "caution.serious": "The data doctor found something serious in the photographs: see what it says"
    " below.",
    # Class by class.
    "classes.title": "Class by class",
    "classes.caption": "Accuracy with 95 % intervals; filled dots tuned{others}",
    "classes.caption.zero_shot": ", open dots zero-shot",
    "classes.caption.probe": ", squares linear probe",
    "classes.class": "Class",
    "classes.tuned_on": "Tuned on",
    "classes.measured_on": "Measured on",
    "classes.points": "Points",
    "classes.mean": "Mean of the classes",
    "classes.all": "All photographs",
    # What wrong decisions cost.
    "costs.title": "What wrong decisions cost",
    "costs.lead": "Of every 1,000 parts of a kind, with 95 % intervals, where each photograph is"
    " decided by its most probable class. How many of the parts on the line are of which kind, no"
    " report can know.",
    "costs.caption": "Per 1,000 parts",
    "costs.kind": "What happens",
    "costs.of": "Of 1,000",
    "costs.count": "Per 1,000 (95 %)",
    "costs.seen": "Seen here",
    "costs.each": "Costs each",
    "costs.cost": "Cost per 1,000 (95 %)",
    "costs.miss": "Misses: ng parts let through",
    "costs.alarm": "False alarms: ok parts stopped",
    "costs.undecided": "Undecided: left to a person",
    "costs.of.ng": "ng parts",
    "costs.of.ok": "ok parts",
    "costs.of.all": "parts of any class, mixed as here",
    "costs.of.class": "parts of {name}",
    "costs.none": "No class is of the role ok, or none of the role ng: there is nothing to let through"
    " or to stop.",
    # Trust.
    "trust.title": "Can its probabilities be believed, and when does it say no?",
    "trust.lead.folds": "Calibrated on predictions of models that had not seen the photograph"
    " (out-of-fold): logits are divided by a temperature of {temperature}.",
    "trust.lead.holdout": "Calibrated out-of-fold on the training photographs, at a temperature of"
    " {temperature}; measured on the held-out ones.",
    "trust.reliability": "Reliability",
    "trust.reliability.note": "Photographs by the probability of their most probable class, and how"
    " many of them were right. On the diagonal a probability means what it says. Below it the model"
    " is too sure. Bins of fewer than {least} photographs are left out.",
    "trust.before": "before",
    "trust.after": "calibrated",
    "trust.ideal": "ideal",
    "trust.axis": "probability",
    "trust.sets": "Prediction sets and decisions",
    "trust.ece": "Expected calibration error, before and after",
    "trust.ece.value": "{before} → {after} points",
    "trust.coverage": "Sets that hold the true class",
    "trust.coverage.note": "asked for: at least {wanted}",
    "trust.coverage.folds": "asked for: at least {wanted}; reached by construction on these"
    " photographs, up to whole ones",
    "trust.between": "; ",
    "trust.size": "Classes in a set, on average",
    "trust.size.note": "sets of 0, 1, 2, … classes: {sizes}",
    "trust.decided": "Decided ok or ng",
    "trust.decided_accuracy": "Of these, right",
    "trust.unlike": "Unlike the training photographs",
    "trust.per_class": "Coverage by class",
    "trust.none": "no photograph of it",
    "trust.pooled": "Too few photographs for a threshold of their own: {names}.",
    "trust.reasons": "Why it decided, or did not",
    "reason.certain": "Every class that it could be of leads to this decision",
    "reason.most_probable": "The most probable class decided",
    "reason.least_cost": "The decision that is expected to cost least",
    "reason.no_class_fits": "Undecided: fits none of the classes",
    "reason.mixed_roles": "Undecided: could be of a good class as well as of a bad one",
    "reason.role_other": "Undecided: could be of a class that decides nothing",
    "reason.too_few_images": "Undecided: too few photographs to be as sure as is asked",
    "reason.unlike_training_images": "Undecided: unlike all training photographs",
    "reason.photograph_dark": "Undecided: darker than any training photograph",
    "reason.photograph_bright": "Undecided: brighter than any training photograph",
    "reason.photograph_blurred": "Undecided: less detail than any training photograph",
    "reason.photograph_unusual": "Undecided: light and detail unlike those in training",
    "reason.review_costs_less": "Undecided: to have a person look costs less",
    "reason.budget": "Undecided: would exceed the budget of wrong decisions",
    "reason.budget_not_held": "Undecided: too few photographs to keep the budget",
    "trust.guarantee": "The guarantee holds on average over draws of photographs like these, one"
    " part at a time; it says nothing of another camera, another light or another kind of part.",
    # Confusions.
    "confusions.title": "What is taken for what",
    "confusions.wrong": "{wrong} of {photographs} decided wrong. Most often:",
    "confusions.pair": "{count} of {total} {label} taken for {predicted}",
    "confusions.separator": "; ",
    "confusions.end": ".",
    "confusions.none": "None of {photographs} was decided wrong.",
    "confusions.reading": "Rows are the true classes, columns what was predicted. Counts, and shares"
    " of the row.",
    "confusions.reading.counts": "Rows are the true classes, columns what was predicted. Counts.",
    "confusions.matrix": "Confusion matrix",
    "confusions.many": "With {n} classes the matrix is left out.",
    # Mistakes.
    "mistakes.title": "The photographs it got wrong",
    "mistakes.some": "{shown} of the {wrong}, the most confident mistake first.",
    "mistakes.one": "The only one, the most confident mistake first.",
    "mistakes.all": "All {shown}, the most confident mistake first.",
    "mistakes.look": "Look for wrong labels too: a confident mistake is sometimes a photograph in the"
    " wrong folder.",
    "mistakes.photograph": "Photograph {name}: labelled {label}, predicted {predicted}",
    "mistakes.heat": "Heat map of {name}: what speaks for {predicted} against {label}",
    "mistakes.labelled": "labelled",
    "mistakes.heatmaps": "Beside each photograph, as the model sees it, stands where the final model"
    " finds what speaks for the class it took, against the right one ({way}): yellow is most."
    " {folds}",
    "mistakes.heatmaps.folds": "The mistake itself was made by a model tuned without this"
    " photograph.",
    "mistakes.way.grad-cam": "Grad-CAM on the last convolutional stage",
    "mistakes.way.attention": "attention weighted by its gradient",
    "mistakes.way.occlusion": "occlusion of windows",
    "mistakes.deletion": "Deletion {map}, random {random}",
    "mistakes.check": "Sanity check: the hottest parts are blurred first, and the area under the"
    " falling probability is compared with random orders; lower is better. On average {map} against"
    " {random}, lower on {better} of {total}.",
    "mistakes.check.more": "The maps tell more than chance.",
    "mistakes.check.same": "That is no more than chance would give: do not read much into these maps.",
    "mistakes.check.few": "With so few photographs this cannot be told from chance: take the maps as"
    " hints.",
    "mistakes.table": "Without their pictures: the report was made where the photographs were not.",
    "mistakes.name": "Photograph",
    "mistakes.label": "Labelled",
    "mistakes.predicted": "Predicted",
    "mistakes.probability": "Probability",
    # The data doctor.
    "findings.title": "What the data doctor says of the photographs",
    "findings.none": "Nothing was found: no copies, no doubtful labels, no spoilt photographs.",
    "findings.kind": "Finding",
    "findings.count": "How many",
    "findings.says": "The worst of them, and what to do",
    "findings.examples": "Such as: {names}",
    "findings.serious": "serious",
    "findings.warning": "warning",
    "findings.note": "note",
    "finding.exact_duplicate": "Copies of one photograph",
    "finding.near_duplicate": "Nearly the same photograph",
    "finding.label_error": "Labels that are probably wrong",
    "finding.outlier": "Unlike all others of its class",
    "finding.blur": "Out of focus",
    "finding.exposure": "Too dark or too bright",
    "finding.size": "Odd size",
    "finding.giveaway": "The class can be told from the file alone",
    "finding.imbalance": "Classes of very different size",
    "finding.few_images": "Too few photographs",
    "finding.identical_class": "All photographs of a class the same",
    "finding.unreadable": "Cannot be read",
    # Given only where a language cannot use the doctor's own sentence.
    "finding.exact_duplicate.fix": "Keep one, and see that no copy stands on both sides of a split.",
    "finding.near_duplicate.fix": "Photograph other parts instead, or put them in one group.",
    "finding.label_error.fix": "Look at them, and correct the label where it is wrong.",
    "finding.outlier.fix": "Look at them, and remove what does not belong.",
    "finding.blur.fix": "Take them again in focus.",
    "finding.exposure.fix": "Take them again in the light of the line.",
    "finding.size.fix": "Use one camera setting for all classes.",
    "finding.giveaway.fix": "Store all classes in one format, size and border.",
    "finding.imbalance.fix": "Photograph more of the small classes; the tuning weighs them up.",
    "finding.few_images.fix": "Photograph more of the class.",
    "finding.identical_class.fix": "Add photographs of other parts of the class.",
    "finding.unreadable.fix": "Send the files again.",
    # The learning curve.
    "curve.title": "Are there enough photographs?",
    "curve.next": "Photograph {name} next: {more} more would raise the mean accuracy by about {gain}"
    " points ({low} to {high}).",
    "curve.enough": "{more} more photographs of any one class would hardly raise the mean accuracy.",
    "curve.stand_in": "Measured by cross-validation on sub-samples, with a classifier that is cheaper than whole tunings;"
    " intervals of 90 %.",
    "curve.class": "Class",
    "curve.images": "Photographs",
    "curve.now": "Accuracy now, %",
    "curve.then": "With {more} more, %",
    "curve.gain": "Gain, points",
    "curve.unknown": "too few to tell",
    "curve.chart": "Accuracy by photographs of the class",
    "curve.chart.note": "Solid: measured. Dashed: extrapolated.",
    "curve.axis": "photographs",
    "curve.range": "{low} to {high}",
    # The search.
    "search.title": "How the recipe was found",
    "search.lead": "{trials} were tried in {time}, each by cross-validation in {folds} folds on"
    " {photographs}; the held-out photographs were not touched.",
    "search.kept": "The default recipe was kept: no other was better by more than noise ({gain}"
    " points against {needed}).",
    "search.taken": "Recipe {number} was taken: {gain} points better than the default, where more"
    " than {needed} is more than noise.",
    "search.chart": "Best so far",
    "search.chart.note": "Mean accuracy of the classes, cross-validated, in percent.",
    "search.axis": "recipe",
    "search.each": "each",
    "search.best": "best so far",
    "search.importance": "Which hyperparameters mattered",
    "search.parameter": "Hyperparameter",
    "search.share": "Share of the spread",
    # Geometry.
    "geometry.title": "How far apart the classes stand",
    "geometry.two": "The raw cosine between the two classes. The ideal for two classes is −1:"
    " opposite directions. NC2 is identically 0 for two classes and NC3 can only be 0 or 2, so"
    " neither is shown.",
    "geometry.lead": "Raw cosines between the text features of every two classes, on one colour"
    " scale. In the ideal, a simplex equiangular tight frame (ETF), every two classes have the cosine"
    " {formula}, here {ideal}: no classes can stand further apart from each other. The last map shows"
    " how the photographs themselves stand; tuning text cannot move them.",
    "geometry.no_ideal": "In {dimensions} dimensions {n} classes have no such frame; the ideal is out"
    " of reach.",
    "geometry.many": "With {n} classes the maps are left out.",
    "geometry.apart": "What it means: tuning moved the prompts of different classes apart (mean cosine"
    " {before} → {after}, ideal {ideal}).",
    "geometry.together": "What it means: tuning moved the prompts of different classes together (mean"
    " cosine {before} → {after}, ideal {ideal}).",
    "geometry.unmoved": "What it means: tuning left the prompts of different classes as far apart as"
    " they were (mean cosine {after}, ideal {ideal}).",
    "geometry.even.closer": "They stand more evenly around each other than before (NC2 {before} →"
    " {after}, ideal 0).",
    "geometry.even.further": "They stand less evenly around each other than before (NC2 {before} →"
    " {after}, ideal 0).",
    "geometry.even.unchanged": "They stand as evenly around each other as before (NC2 {after}, ideal"
    " 0).",
    "geometry.aligned.closer": "Texts and photographs now agree better on how the classes lie (NC3"
    " {before} → {after}, ideal 0).",
    "geometry.aligned.further": "Texts and photographs now agree less on how the classes lie (NC3"
    " {before} → {after}, ideal 0).",
    "geometry.aligned.unchanged": "Texts and photographs agree on how the classes lie as they did (NC3"
    " {after}, ideal 0).",
    "geometry.mi.closer": "Each text stands closer to its photographs (squared distance {before} →"
    " {after}).",
    "geometry.mi.further": "Each text stands further from its photographs (squared distance {before} →"
    " {after}).",
    "geometry.mi.unchanged": "Each text stands as far from its photographs as before (squared distance"
    " {after}).",
    "geometry.claim.holds": "Closer to the ideal frame and more accurate ({points} points): on these"
    " photographs the two went together, as neural collapse would have it.",
    "geometry.claim.no_gain": "Closer to the ideal frame, yet no more accurate ({points} points): on"
    " these photographs the geometry did not pay.",
    "geometry.claim.without": "More accurate ({points} points) without coming closer to the ideal"
    " frame: the gain came from elsewhere, such as where the decision lines lie.",
    "geometry.claim.neither": "Neither closer to the ideal frame nor more accurate ({points} points).",
    "geometry.before": "Before: hand-written",
    "geometry.after": "After: tuned",
    "geometry.ideal": "Ideal: simplex ETF",
    "geometry.photographs": "The photographs",
    "geometry.kind.text": "Text",
    "geometry.kind.ideal": "Ideal",
    "geometry.kind.images": "Class means",
    "geometry.every": "{kind}: every pair {value}",
    "geometry.pairs": "{kind}: pairs from {least} to {most}, mean {mean}",
    "geometry.cosine": "{name}: cosine {value}",
    "geometry.opposite": "−1 opposite",
    "geometry.same": "same 1",
    "geometry.scale": "Colour scale of the cosines, from −1 to 1",
    "geometry.keys": "The classes by number",
    "geometry.closest": "The closest pairs as a table",
    "geometry.closest.label": "The closest pairs",
    "geometry.closest.caption": "Raw cosines, the pair whose tuned prompts stand closest first",
    "geometry.pair": "Pair",
    "geometry.pair.names": "{first} and {second}",
    "geometry.column.before": "Before",
    "geometry.column.after": "After",
    "geometry.column.photographs": "Photographs",
    # How the tuning went.
    "training.title": "How the tuning went",
    "training.loss": "Loss",
    "training.loss.note": "At the last step of each epoch; the terms as they enter the sum.",
    "training.loss.without": "At the last step of each epoch; the terms as they enter the sum ({terms}"
    " with weight 0 in this recipe).",
    "training.cosine": "Cosine of the two prompts",
    "training.cosine.note": "The raw cosine between the two text features.",
    "training.distance": "Distance from the ideal frame",
    "training.distance.note": "NC2 of the text features and NC3 of text to image; 0 is the ideal.",
    "training.none": "No epochs were recorded.",
    "chart.total": "total",
    "chart.ce": "cross-entropy",
    "chart.nc2": "NC2 text",
    "chart.nc3": "NC3",
    "chart.cosine": "text cosine",
    "chart.ideal": "ideal",
    "chart.epoch": "epoch",
    "chart.move": "{name} from {first} to {last}",
    "chart.moves": "By {axis}, {start} to {end}: {moves}.",
    "chart.separator": "; ",
    # Neural collapse.
    "collapse.title": "Neural collapse, in numbers",
    "collapse.measured": "Measured on the {photographs} of the training.",
    "collapse.two": "The other measures (NC2, NC3, spreads) are fixed by there being two classes and"
    " are left out.",
    "collapse.raw": "LC works on raw cosines, while NC2 and NC3 centre the features first: one can move"
    " without the other.",
    "collapse.text": "Text side: what tuning can move",
    "collapse.image": "Image side: given once, since tuning text cannot move the photographs",
    "collapse.image.label": "Image side",
    "collapse.measure": "Measure",
    "collapse.meaning": "What it means",
    "collapse.before": "Before",
    "collapse.after": "After",
    "collapse.ideal": "Ideal",
    "collapse.value": "Value",
    "collapse.against": "Against the ideal",
    "verdict.closer": "closer",
    "verdict.further": "further",
    "verdict.unchanged": "unchanged",
    "collapse.posterior": "The classifier weighs each class's text against its photographs, by how many"
    " there are; the figures of the text side are of the text features alone.",
    "collapse.mean": "The classifier adds {alpha} of each image class mean to its text feature; the"
    " figures of the text side are of the text features alone.",
    **_MEASURES,
    # What it took, and how to do it again.
    "time.title": "What it took",
    "time.phase": "Phase",
    "time.time": "Time",
    "time.bar": "Bar",
    "time.prediction": "One prediction",
    "phase.start": "Starting the service",
    "phase.upload": "Uploading the photographs",
    "phase.queue": "Queue, start and end of the job",
    "phase.features": "Encoding the photographs",
    "phase.tune": "Tuning the prompts",
    "phase.evaluate": "Measuring the result",
    "phase.predict": "Deciding the test photographs",
    "phase.zero-shot": "The same without tuning",
    "again.title": "How to do it again",
    "again.same": "The same photographs give the same model digest on the same kind of machine, bit for"
    " bit.",
    "again.derived": "The same recipe, seed, view and classes, on a folder of the photographs. The"
    " digest is of these photographs in this order, with their parts and holdout, and comes out again"
    " only where all of that is the same.",
    "again.what": "What it is",
    "again.recipe": "Recipe",
    "again.none": "none",
    "fact.model": "Model",
    "fact.backbone": "Backbone",
    "fact.backbone_digest": "Backbone digest",
    "fact.snapshot": "Snapshot of the photographs",
    "fact.recipe": "Recipe digest",
    "fact.seed": "Seed",
    "fact.view": "View",
    "fact.view.value": "{resize}, {roi}, decoder {decoder}",
    "fact.view.whole": "whole image",
    "fact.shotline": "Shotline",
    "fact.made": "Made",
    "fact.made_on": "Made on",
}
