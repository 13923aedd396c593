"""PaddleSeg 2.8.0 on Paddle 3: all that it needs to run as it should, in one place.

`paddleseg.core.train()` is called as it is; nothing in the installed package is edited. While it runs,
names that it looks up are replaced. Each has a test in ``tests/engine/test_paddleseg_fixes.py``
that fails when the fix is no longer needed.

====================================  =========================================================================
replaced while training               because
====================================  =========================================================================
``paddleseg.core.train.evaluate``     the stock one concatenates 0-D tensors (ValueError on Paddle 3) and scores
                                      pooled pixels; ours scores whole cases and picks by the recipe's score
``visualdl.LogWriter``                a resumed run started a new file, and VisualDL shows only the newest one;
                                      the stock writer also labels any score mIoU
``paddle.io.DistributedBatchSampler`` a data set smaller than a batch looped for ever without a word; a resumed
                                      run saw the first images again
``init_ema_params``,                  the stock average has a decay that no recipe can set, and leaves what is no
``update_ema_model``                  floating-point number as it was at the start
``sys.stdout``                        PaddleSeg prints its log; it goes to the run's ``train.log``
``paddle.save``                       files were written in place, one by one: a kill left a part of a checkpoint
``deepcopy``, ``init_ema_params``     a resumed run began its moving average anew; `train()` neither gives it away
(both in ``train``)                   nor loads it
``paddle.amp.GradScaler``             the same, for the loss scaler
``float`` (in ``train``)              the only use of the loss in each iteration: a NaN went on to the end without a
                                      word, and the mean of a line amid which a run was stopped was wrong
``train.loss_computation``            bf16 was taken for fp32; and what the parts of a loss are
``paddle.distributed.ParallelEnv``    of several processes each computed its own loss, and the gradients' mean was
                                      taken: another loss than the batch's; `engine.ranks` adds them up
``train.logger``                      it calls the Dice mIoU, and names the best of this call only
====================================  =========================================================================

Of its transforms, ScalePadding resizes labels to the nearest neighbour here (`transforms.py`; the stock one
interpolates them by cubic splines, which makes classes that were not there), and RandomPaddingCrop with a
``category_max_ratio`` below 1 is refused by recipes (the stock one then returns the label as the image).

Losses are ours (`engine.losses`): the stock CrossEntropyLoss raises a type-promotion TypeError on Paddle 3, the
stock DiceLoss returns a 0-D value that `train()` cannot index, and changes the caller's labels.
"""

from paddleseg.cvlibs import manager

__all__ = ["manager"]
